package share_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/share"
	"capsem/core/share/wire"
)

// kernel is a guest's kernel that says what it likes.
type kernel struct {
	t      testing.TB
	host   string
	server *share.Server
	conn   net.Conn
	unique uint64
	served sync.WaitGroup
}

func newKernel(t testing.TB, change func(*share.Config)) *kernel {
	t.Helper()
	// outside is beside the shared directory: no request may reach it.
	top := t.TempDir()
	config := share.Config{Root: top + "/root", Tag: "raw"}
	must(t, os.Mkdir(config.Root, 0o755))
	must(t, os.Mkdir(top+"/outside", 0o755))
	write(t, top+"/outside/secret", "secret")
	if change != nil {
		change(&config)
	}
	server, err := share.New(config)
	must(t, err)
	k := &kernel{t: t, host: config.Root, server: server}
	t.Cleanup(func() {
		if k.conn != nil {
			_ = k.conn.Close()
		}
		must(t, server.Close())
		k.served.Wait()
		if l, err := os.ReadDir(top + "/outside"); err != nil || len(l) != 1 || read(t, top+"/outside/secret") != "secret" {
			t.Error("something outside was changed")
		}
	})
	k.dial()
	return k
}

// dial begins a session of a new mount.
func (k *kernel) dial() {
	k.t.Helper()
	if k.conn != nil {
		_ = k.conn.Close()
	}
	ours, theirs, err := socketPair()
	must(k.t, err)
	k.conn = ours
	k.served.Go(func() { _ = k.server.Serve(context.Background(), theirs) })
	mount := binary.LittleEndian.AppendUint64(make([]byte, 8), uint64(time.Now().UnixNano()))
	must(k.t, wire.WriteHandshake(k.conn, wire.Hello{Version: wire.Version, Mount: mount}))
	_, err = wire.ReadWelcome(k.conn)
	must(k.t, err)
	if errno, _ := k.call(wire.OpInit, 0, num32(7, 38, 1<<20, 0xffffffff)); errno != 0 {
		k.t.Fatal("INIT:", errno)
	}
}

func (k *kernel) send(op wire.Op, node uint64, body []byte) uint64 {
	k.t.Helper()
	k.unique += 2
	frame := wire.AppendRequest(make([]byte, wire.FrameHead), op, k.unique, node, body)
	wire.PutHead(frame)
	if _, err := k.conn.Write(frame); err != nil {
		k.t.Fatal(err)
	}
	return k.unique
}

// call sends a request and returns its answer.
func (k *kernel) call(op wire.Op, node uint64, body []byte) (unix.Errno, []byte) {
	k.t.Helper()
	unique := k.send(op, node, body)
	for {
		must(k.t, k.conn.SetReadDeadline(time.Now().Add(deadline)))
		n, err := wire.ReadHead(k.conn, wire.OutSize)
		must(k.t, err)
		b := make([]byte, n)
		_, err = io.ReadFull(k.conn, b)
		must(k.t, err)
		code, of, err := wire.ParseOut(b)
		must(k.t, err)
		if of == unique {
			return unix.Errno(-code), b[wire.OutSize:]
		}
		if of != 0 {
			k.t.Fatalf("an answer to %d, not %d", of, unique)
		}
	}
}

// lookup returns the node of a name, 0 if there is none.
func (k *kernel) lookup(parent uint64, name string) (unix.Errno, uint64) {
	k.t.Helper()
	errno, b := k.call(wire.OpLookup, parent, text(name))
	if errno != 0 {
		return errno, 0
	}
	return 0, binary.LittleEndian.Uint64(b)
}

func (k *kernel) mustLookup(parent uint64, name string) uint64 {
	k.t.Helper()
	errno, node := k.lookup(parent, name)
	if errno != 0 || node == 0 {
		k.t.Fatalf("lookup %s: %v", name, errno)
	}
	return node
}

func num32(v ...uint32) (b []byte) {
	for _, n := range v {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return b
}

func num64(v ...uint64) (b []byte) {
	for _, n := range v {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return b
}

func text(s ...string) (b []byte) {
	for _, t := range s {
		b = append(append(b, t...), 0)
	}
	return b
}

func join(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}
