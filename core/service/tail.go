package service

import (
	"bytes"
	"io"
	"os"
	"strings"
	"syscall"

	"capsem/core/paths"
)

// maxLog bounds what is read of one log, in bytes.
const maxLog = 1 << 20

// tail returns the last lines of a file, all of them when lines is 0, and at most maxLog bytes.
func tail(path string, lines int) string {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	data, _ := tailOf(f, lines)
	return string(data)
}

// tailOf is tail for an open file; end is where it stopped reading.
func tailOf(f *os.File, lines int) (data []byte, end int64) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, 0
	}
	start := max(info.Size()-maxLog, 0)
	data, err = io.ReadAll(io.NewSectionReader(f, start, info.Size()-start))
	if err != nil {
		return nil, info.Size()
	}
	end = start + int64(len(data))
	if start > 0 { // begin with a whole line
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			data = data[i+1:]
		}
	}
	return lastLines(data, lines), end
}

// lastLines is the last n lines of data, all when n is 0.
func lastLines(data []byte, n int) []byte {
	if n <= 0 {
		return data
	}
	at := len(data)
	if at > 0 && data[at-1] == '\n' {
		at--
	}
	for ; n > 0; n-- {
		i := bytes.LastIndexByte(data[:at], '\n')
		if i < 0 {
			return data
		}
		at = i
	}
	return data[at+1:]
}

// lastWords is what the logs of a VM say about its end: the last lines of the worker's log, else of the console.
func lastWords(dir paths.VM) string {
	for _, path := range []string{dir.ProcessLog(), dir.SerialLog()} {
		if text := strings.TrimSpace(tail(path, 5)); text != "" {
			return clip(strings.ToValidUTF8(text, "?"), 4<<10)
		}
	}
	return ""
}
