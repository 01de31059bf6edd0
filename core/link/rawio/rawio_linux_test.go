package rawio_test

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"capsem/core/link/rawio"
)

func TestReadsAndWritesWhatDoesNotBlock(t *testing.T) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<20)
	if n, err := rawio.Read(p[0], buf); n != 0 || !errors.Is(err, unix.EAGAIN) {
		t.Errorf("an empty pipe: %d, %v", n, err)
	}
	if n, err := rawio.Read(p[0], nil); n != 0 || err != nil {
		t.Errorf("nothing to read: %d, %v", n, err)
	}
	text := bytes.Repeat([]byte("0123456789"), 100_000)
	n, err := rawio.Write(p[1], text)
	if err != nil || n == 0 || n == len(text) {
		t.Fatalf("a pipe takes %d bytes of %d: %v", n, len(text), err)
	}
	if _, err := rawio.Write(p[1], text[n:]); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("a full pipe: %v", err)
	}
	got := 0
	for got < n {
		m, err := rawio.Read(p[0], buf)
		if err != nil || !bytes.Equal(buf[:m], text[got:got+m]) {
			t.Fatalf("after %d bytes: %d, %v", got, m, err)
		}
		got += m
	}
	if err := errors.Join(unix.Close(p[1]), unix.Close(p[0])); err != nil {
		t.Fatal(err)
	}
	if _, err := rawio.Read(p[0], buf); !errors.Is(err, unix.EBADF) {
		t.Errorf("a closed file: %v", err)
	}
}
