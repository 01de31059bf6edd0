package mcptools

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"capsem/core/fault"
)

const (
	// maxKept bounds what is kept of one stream in bytes, maxOutputs how many commands' outputs are kept.
	maxKept    = 32 << 20
	maxOutputs = 8
	// inMemory is how much of a stream waits in memory before it goes to a file.
	inMemory = 256 << 10
	// defaultPart and maxPart bound one part of what is read in parts.
	defaultPart = 32 << 10
	maxPart     = 512 << 10
)

// spool keeps the beginning of a stream: a little in memory, more in a file that has no name.
type spool struct {
	mu   sync.Mutex
	head []byte
	file *os.File
	// kept bytes can be read again; total counts all.
	kept, total int64
	broken      bool
}

// Write keeps what there is room for; it never fails, so that a full disk does not end a command.
func (s *spool) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total += int64(len(p))
	room := min(int64(len(p)), maxKept-s.kept)
	if room <= 0 || s.broken || s.kept+int64(len(p)) < s.total { // what comes after a gap is not kept
		return len(p), nil
	}
	part := p[:room]
	if s.file == nil && len(s.head)+len(part) <= inMemory {
		s.head = append(s.head, part...)
		s.kept += room
		return len(p), nil
	}
	if err := s.spill(part); err != nil {
		s.broken = true
		return len(p), nil
	}
	s.kept += room
	return len(p), nil
}

// spill writes to the file, made at need; what is in memory stays there.
func (s *spool) spill(part []byte) error {
	if s.file == nil {
		f, err := os.CreateTemp("", "capsem-mcp-*")
		if err != nil {
			return fmt.Errorf("keep output: %w", err)
		}
		if err := os.Remove(f.Name()); err != nil {
			return errors.Join(fmt.Errorf("keep output: %w", err), f.Close())
		}
		s.file = f
	}
	if _, err := s.file.WriteAt(part, s.kept-int64(len(s.head))); err != nil {
		return fmt.Errorf("keep output: %w", err)
	}
	return nil
}

// part reads up to limit bytes from offset on.
func (s *spool) part(offset int64, limit int) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if offset >= s.kept {
		return nil, nil
	}
	out := make([]byte, min(int64(limit), s.kept-offset))
	n := 0
	if offset < int64(len(s.head)) {
		n = copy(out, s.head[offset:])
	}
	if n < len(out) {
		if _, err := s.file.ReadAt(out[n:], offset+int64(n)-int64(len(s.head))); err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read output again: %w", err)
		}
	}
	return out, nil
}

func (s *spool) sizes() (kept, total int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept, s.total
}

func (s *spool) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		_ = s.file.Close() // it has no name, and is gone
		s.file, s.kept, s.broken = nil, int64(len(s.head)), true
	}
}

// preview is a stream in at most limit bytes: all of it, or its beginning and its end with a line about what is missing.
func (s *spool) preview(limit int, pointer string) (text string, cut bool, err error) {
	kept, total := s.sizes()
	if total <= int64(limit) && kept == total {
		all, err := s.part(0, limit)
		return plainUTF8(all), false, err
	}
	half := limit / 2
	head, err := s.part(0, half)
	if err != nil {
		return "", true, err
	}
	tail, err := s.part(max(kept-int64(half), int64(len(head))), half)
	if err != nil {
		return "", true, err
	}
	missing := total - int64(len(head)) - int64(len(tail))
	note := fmt.Sprintf("\n[... %d bytes are left out here; %s ...]\n", missing, pointer)
	if kept < total {
		note = fmt.Sprintf("\n[... %d bytes are left out here, and %d more were not kept; %s ...]\n", kept-int64(len(head))-int64(len(tail)), total-kept, pointer)
	}
	return plainUTF8(head) + note + plainUTF8(tail), true, nil
}

// plainUTF8 is text whatever a guest wrote.
func plainUTF8(b []byte) string { return strings.ToValidUTF8(string(b), "\uFFFD") }

// kept is the output of one command.
type kept struct {
	id     string
	stream map[string]*spool
}

// outputs are those of the last commands that were too long to answer with.
type outputs struct {
	mu   sync.Mutex
	next int
	all  []*kept
}

// keep takes over the spools of a command and returns the id they are found under. The oldest go when there are too many.
func (o *outputs) keep(streams map[string]*spool) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next++
	k := &kept{id: "o" + strconv.Itoa(o.next), stream: streams}
	if o.all = append(o.all, k); len(o.all) > maxOutputs {
		closeAll(o.all[0])
		o.all = o.all[1:]
	}
	return k.id
}

// keepText keeps an answer.
func (o *outputs) keepText(text []byte) string {
	s := &spool{}
	_, _ = s.Write(text) // never fails
	return o.keep(map[string]*spool{"stdout": s})
}

func (o *outputs) find(id, stream string) (*spool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, k := range o.all {
		if k.id != id {
			continue
		}
		if s := k.stream[stream]; s != nil {
			return s, nil
		}
		return nil, fault.New(fault.NotFound, "output %s has no stream %.20q", id, stream).WithHint("there is stdout, and stderr of a command")
	}
	return nil, fault.New(fault.NotFound, "there is no output %.20q", id).
		WithHint("the outputs of the last %d commands that were too long are kept; run the command again, into a file", maxOutputs)
}

func (o *outputs) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, k := range o.all {
		closeAll(k)
	}
	o.all = nil
}

func closeAll(k *kept) {
	for _, s := range k.stream {
		s.close()
	}
}

// part is a part of something that is read in parts.
type part struct {
	Content  string `json:"content" jsonschema:"the bytes as text, or in base64"`
	Encoding string `json:"encoding" jsonschema:"utf-8 or base64"`
	Offset   int64  `json:"offset" jsonschema:"where the part begins, in bytes"`
	Size     int64  `json:"size" jsonschema:"how much there is in all, in bytes"`
	Next     int64  `json:"next_offset,omitempty" jsonschema:"the offset to go on from; absent at the end"`
}

// partOf makes a part of bytes: text if they are, else base64. A character that is cut at the end is left for the next part.
func partOf(data []byte, offset, size int64, encoding string) part {
	more := offset+int64(len(data)) < size
	if more {
		data = data[:len(data)-cutRune(data)]
	}
	p := part{Encoding: "utf-8", Offset: offset, Size: size}
	if encoding == "base64" || !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 {
		p.Encoding, p.Content = "base64", base64.StdEncoding.EncodeToString(data)
	} else {
		p.Content = string(data)
	}
	if more {
		p.Next = offset + int64(len(data))
	}
	return p
}

// cutRune is how many bytes at the end are the beginning of a character whose rest is missing.
func cutRune(data []byte) int {
	for back := 1; back < utf8.UTFMax && back < len(data); back++ {
		b := data[len(data)-back]
		if utf8.RuneStart(b) {
			if b >= utf8.RuneSelf && !utf8.FullRune(data[len(data)-back:]) {
				return back
			}
			return 0
		}
	}
	return 0
}

// checkPart completes and checks what part is wanted.
func checkPart(offset int64, limit int) (int, error) {
	if offset < 0 || limit < 0 || limit > maxPart {
		return 0, fault.New(fault.OutOfRange, "offset %d or limit %d is out of range", offset, limit).WithHint("limit is at most %d", maxPart)
	}
	if limit == 0 {
		limit = defaultPart
	}
	return limit, nil
}

type readOutputParams struct {
	Output string `json:"output" jsonschema:"the output's id, as the command's result named it"`
	Stream string `json:"stream,omitempty" jsonschema:"stdout or stderr"`
	Offset int64  `json:"offset,omitempty" jsonschema:"where to begin, in bytes"`
	Limit  int    `json:"limit,omitempty" jsonschema:"how many bytes at most"`
}

func (s *Server) readOutput(_ context.Context, _ *call, in readOutputParams) (part, error) {
	limit, err := checkPart(in.Offset, in.Limit)
	if err != nil {
		return part{}, err
	}
	sp, err := s.outputs.find(in.Output, in.Stream)
	if err != nil {
		return part{}, err
	}
	data, err := sp.part(in.Offset, limit)
	if err != nil {
		return part{}, err
	}
	size, _ := sp.sizes()
	return partOf(data, in.Offset, size, ""), nil
}
