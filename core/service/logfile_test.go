package service

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestALogThatSomebodyRemovedIsBegunAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := OpenLog(path, 100)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Repeat("x", 59) + "\n"
	for range 2 {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second is too much
			if _, err := l.Write([]byte(line)); err != nil {
				t.Fatal(err)
			}
		}
		if now, err := os.ReadFile(path); err != nil || string(now) != line {
			t.Errorf("%q, %v", now, err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
