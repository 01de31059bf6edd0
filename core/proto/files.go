package proto

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"
)

// FileOp is what a FileRequest does.
type FileOp string

// The operations.
const (
	// FileRead sends the content as Data frames, then Result.
	FileRead FileOp = "read"
	// FileWriteOp takes Data frames until an empty one, writes to a temporary name, renames, then Result.
	FileWriteOp FileOp = "write"
	// FileList sends Data frames of JSON lines, one FileInfo each, then Result.
	FileList FileOp = "list"
	// FileStat sends Result with Info.
	FileStat FileOp = "stat"
	// FileDelete removes a file, a symlink itself, or (Recursive) a directory; then Result.
	FileDelete FileOp = "delete"
	// FileMkdir makes a directory and its parents; then Result.
	FileMkdir FileOp = "mkdir"
	// FileSync writes out what is still in memory of the file system that Root is on; then Result.
	FileSync FileOp = "sync"
)

// FileRequest opens a stream on PortAgentFiles: one CBOR frame after the stream header, then stream frames.
// Every name is resolved beneath Root; no symlink leads out of it.
type FileRequest struct {
	// Op is the operation.
	Op FileOp `cbor:"op"`
	// Root is the absolute directory the caller confines the operation to; empty means /root.
	Root string `cbor:"root,omitempty"`
	// Path is relative to Root, without "..". Empty, "." and the like ("./", ".//.") mean Root itself (list and stat only).
	Path string `cbor:"path"`
	// Mode is the permission bits of a written file or made directory; 0 means 0644 or 0755.
	Mode uint32 `cbor:"mode,omitempty"`
	// Recursive deletes a directory with what is in it.
	Recursive bool `cbor:"recursive,omitempty"`
	// Depth is how many levels list goes down, 1-6; 0 means 1.
	Depth int `cbor:"depth,omitempty"`
	// Parents makes missing parent directories of a written file.
	Parents bool `cbor:"parents,omitempty"`
}

// FileInfo describes one file.
type FileInfo struct {
	// Path is relative to the request's Root.
	Path string `json:"path"`
	// Type is file, dir, symlink or other.
	Type string `json:"type"`
	// Size is in bytes; Mode the permission bits in octal, such as "0644".
	Size int64  `json:"size"`
	Mode string `json:"mode"`
	// ModTimeNS is the modification time in nanoseconds since 1970.
	ModTimeNS int64 `json:"mtime_ns"`
	// Target is where a symlink points, as data.
	Target string `json:"target,omitempty"`
}

// FileResult ends a file operation.
type FileResult struct {
	// OK says that all was done; otherwise Code (a fault.Code) and Message say why not.
	OK      bool   `json:"ok"`
	Code    string `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
	// Info describes the file after stat, read, write or mkdir.
	Info *FileInfo `json:"info,omitempty"`
}

// Validate checks a FileRequest; both sides call it.
func (f *FileRequest) Validate() error {
	switch f.Op {
	case FileRead, FileWriteOp, FileDelete, FileMkdir:
		if path.Clean(f.Path) == "." {
			return errors.New("name a file, not the whole directory")
		}
	case FileList, FileStat, FileSync:
	default:
		return fmt.Errorf("unknown file operation %.20q", f.Op)
	}
	if f.Root != "" && (!path.IsAbs(f.Root) || path.Clean(f.Root) != f.Root) {
		return fmt.Errorf("root %.80q is not absolute and clean", f.Root)
	}
	if len(f.Root) > MaxPath || len(f.Path) > MaxPath || strings.ContainsRune(f.Root+f.Path, 0) {
		return fmt.Errorf("path is longer than %d bytes or contains NUL", MaxPath)
	}
	if !utf8.ValidString(f.Root) || !utf8.ValidString(f.Path) {
		return fmt.Errorf("path %.80q is not UTF-8 text", f.Path)
	}
	if path.IsAbs(f.Path) {
		return fmt.Errorf("path %.80q must be relative to its root", f.Path)
	}
	for part := range strings.SplitSeq(f.Path, "/") {
		if part == ".." {
			return fmt.Errorf("path %.80q contains a parent directory (..) element", f.Path)
		}
	}
	if f.Mode&^0o777 != 0 || f.Depth < 0 || f.Depth > 6 {
		return errors.New("mode or depth out of range")
	}
	return nil
}
