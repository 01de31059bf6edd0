package servicetest

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"capsem/core/checkpoint"
	"capsem/core/image"
	"capsem/core/proto"
	"capsem/core/template"
)

// The fake VM has a disk, which is a text in the place of the real one, and a memory, which is a text that only the process knows.

// want is what every saved memory of a fake depends on.
var want = template.Want{Host: "fake"}

// powerOn gives the VM a disk if it has none, and the memory that it was suspended with.
func (w *worker) powerOn() error {
	f, err := os.OpenFile(w.dir.SystemDisk(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = f.Close()
	} else if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	if err != nil {
		return err
	}
	if w.spec.Cold || !checkpoint.Exists(w.dir.Dir()) {
		return checkpoint.Discard(w.dir.Dir(), w.spec.Cold)
	}
	saved, err := checkpoint.Open(w.dir.Dir(), want)
	if err != nil {
		return err
	}
	defer saved.State.Close()
	text, err := io.ReadAll(saved.State)
	if err != nil {
		return err
	}
	w.memory = string(text)
	if _, err := checkpoint.Take(w.dir.Dir()); err != nil {
		return err
	}
	return checkpoint.Discard(w.dir.Dir(), false)
}

// save is called with mu held.
func (w *worker) save(dir string, also func() error) error {
	return checkpoint.Make(dir, want, func(to *os.File) ([]byte, error) {
		if _, err := to.WriteString(w.memory); err != nil {
			return nil, err
		}
		return nil, also()
	})
}

// fork is called with mu held.
func (w *worker) fork(dir string) proto.WorkerReply {
	err := w.save(dir, func() error {
		disk := w.dir.SystemDisk()
		return errors.Join(image.CopyDisk(disk, filepath.Join(dir, filepath.Base(disk))), image.CopyWorkspace(w.dir.Dir(), dir))
	})
	if err != nil {
		return refusal("internal", err.Error())
	}
	return proto.WorkerReply{}
}

// suspend is called with mu held.
func (w *worker) suspend() proto.WorkerReply {
	if err := w.save(w.dir.Dir(), func() error { return nil }); err != nil {
		return refusal("internal", err.Error())
	}
	return proto.WorkerReply{}
}

// remember is the commands "disk TEXT" and "memory TEXT", which change the VM, and "what", which prints both.
func (w *worker) remember(word, rest string) (out string, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch word {
	case "disk":
		return "", os.WriteFile(w.dir.SystemDisk(), []byte(rest), 0o600) == nil
	case "memory":
		w.memory = rest
		return "", true
	case "what":
		disk, err := os.ReadFile(w.dir.SystemDisk())
		return string(disk) + "|" + w.memory + "\n", err == nil
	}
	return "", false
}
