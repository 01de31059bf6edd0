package share_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strconv"
	"testing"

	"capsem/core/share"
	"capsem/core/share/wire"
)

// deaf is a stream that breaks for who writes to it, though there is still something to read.
type deaf struct {
	bytes.Buffer

	takes int
}

func (d *deaf) Write(b []byte) (int, error) {
	if d.takes--; d.takes < 0 {
		return 0, errors.New("broken")
	}
	return len(b), nil
}

func (d *deaf) Close() error { return nil }

func TestNothingIsCarriedOutThatCannotBeAnswered(t *testing.T) {
	root := t.TempDir()
	server, err := share.New(share.Config{Root: root, Tag: "raw", Quota: share.Quota{InFlight: 1}})
	must(t, err)
	defer func() { must(t, server.Close()) }()
	d := &deaf{takes: 2} // the welcome, and the answer to INIT
	must(t, wire.WriteHandshake(&d.Buffer, wire.Hello{Version: wire.Version, Mount: bytes.Repeat([]byte{1}, 16)}))
	ask := func(op wire.Op, unique, node uint64, body []byte) {
		frame := wire.AppendRequest(make([]byte, wire.FrameHead), op, unique, node, body)
		wire.PutHead(frame)
		d.Buffer.Write(frame)
	}
	ask(wire.OpInit, 2, 0, num32(7, 38, 1<<20, 0xffffffff))
	for i := range 20 {
		ask(wire.OpMkdir, uint64(4+2*i), wire.RootID, join(num32(0o755, 0), text("d"+strconv.Itoa(i))))
	}
	_ = server.Serve(context.Background(), d)
	all, err := os.ReadDir(root)
	must(t, err)
	if len(all) > 1 {
		t.Errorf("%d directories were made; the guest will ask for all of them again", len(all))
	}
}
