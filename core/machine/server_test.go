package machine

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"capsem/core/proto"
)

// serving is the server of a worker without a VM, to be given connections.
func serving(t *testing.T) *server {
	t.Helper()
	s := &server{w: &Worker{log: slog.New(slog.DiscardHandler), board: newBoard(proto.WorkerStatus{ID: "vm"})}}
	s.ctx, s.stop = context.WithCancel(t.Context())
	t.Cleanup(s.stop)
	return s
}

func TestWhoDoesNotGreetIsDropped(t *testing.T) {
	for name, text := range map[string]string{"silence": "", "half a greeting": "\x00\x00", "noise": strings.Repeat("\xff", 4096)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serving(t)
				ours, theirs := net.Pipe()
				go func() { _, _ = io.WriteString(theirs, text) }()
				begin := time.Now()
				s.serve(ours)
				if took := time.Since(begin); took > helloTime {
					t.Errorf("it is heard for %v", took)
				}
				_ = theirs.Close() // ends what still writes
			})
		})
	}
}

func TestARequestThatIsTooLongEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serving(t)
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			_ = proto.WriteFrame(theirs, proto.WorkerHello{Protocol: proto.Version})
			var hello proto.WorkerHello
			if err := proto.ReadFrame(theirs, proto.MaxHeader, &hello); err != nil || hello.ID != "vm" {
				t.Errorf("hello %+v, %v", hello, err)
			}
			_, _ = theirs.Write([]byte{0x7f, 0xff, 0xff, 0xff})
			_, _ = io.Copy(io.Discard, theirs)
		}()
		s.serve(ours)
	})
}
