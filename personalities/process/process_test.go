package process

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capsem/core/entry"
	"capsem/core/fault"
)

func TestAWorkerTakesAbsolutePathsOnly(t *testing.T) {
	for name, args := range map[string][]string{
		"nothing": nil, "no directory": {"--home", "/h"}, "no home": {"--dir", "/d"}, "relative": {"--home", "h", "--dir", "/d"},
		"too much": {"--home", "/h", "--dir", "/d", "more"}, "unknown": {"--home", "/h", "--dir", "/d", "--x"},
	} {
		if err := Run(t.Context(), entry.Env{Args: args}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	o, err := parse([]string{"--home", "/h/", "--dir", "/h/run/x/", "--template-ram", "3"})
	if err != nil || o != (options{"/h", "/h/run/x", 3, false}) {
		t.Errorf("%+v %v", o, err)
	}
}

func TestTheLogIsBoundedAndFollowsItsDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "before")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := openLog(dir, "process.log")
	if err != nil {
		t.Fatal(err)
	}
	l.most = 1000
	moved := filepath.Join(filepath.Dir(dir), "after")
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	for i := range 35 {
		if _, err := l.Write(bytes.Repeat([]byte{byte('a' + i%26)}, 100)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	now, err := os.ReadFile(filepath.Join(moved, "process.log"))
	if err != nil || len(now) != 500 || !strings.HasSuffix(string(now), "iii") {
		t.Errorf("%d bytes, %v", len(now), err)
	}
	if old, err := os.ReadFile(filepath.Join(moved, "process.log.1")); err != nil || len(old) != 1000 {
		t.Errorf("the old log has %d bytes, %v", len(old), err)
	}
}

func TestALogThatSomebodyRemovedIsBegunAnew(t *testing.T) {
	dir := t.TempDir()
	l, err := openLog(dir, "process.log")
	if err != nil {
		t.Fatal(err)
	}
	l.most = 100
	line := strings.Repeat("x", 59) + "\n"
	for range 2 {
		if err := os.Remove(filepath.Join(dir, "process.log")); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second is too much
			if _, err := l.Write([]byte(line)); err != nil {
				t.Fatal(err)
			}
		}
		if now, err := os.ReadFile(filepath.Join(dir, "process.log")); err != nil || string(now) != line {
			t.Errorf("%q, %v", now, err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
