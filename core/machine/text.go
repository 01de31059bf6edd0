package machine

import (
	"io"
	"os"
	"strings"

	"capsem/core/fault"
	"capsem/core/paths"
)

const (
	// consoleTail and consoleLines bound what of the console goes into an error.
	consoleTail, consoleLines = 4 << 10, 12
)

func (w *Worker) dirNow() paths.VM {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dir
}

func (w *Worker) idNow() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.spec.ID
}

// withConsole adds the last lines of the console to the reason of an end.
func (w *Worker) withConsole(why string) string {
	lines := lastLines(w.dirNow().SerialLog())
	if lines == "" {
		return why
	}
	return why + "\nlast of the console:\n" + lines
}

// lastLines are the last lines of a guest's console as plain text.
func lastLines(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > consoleTail {
		if _, err := f.Seek(-consoleTail, io.SeekEnd); err != nil {
			return ""
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, consoleTail))
	if err != nil {
		return ""
	}
	return linesOf(text)
}

// linesOf is lastLines of what was read.
func linesOf(text []byte) string {
	var kept []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(plain(line)); line != "" {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept[max(0, len(kept)-consoleLines):], "\n")
}

// plain drops what could drive a terminal, and what is no text.
func plain(line string) string { return strings.ReplaceAll(fault.Plain(line), "\ufffd", "") }
