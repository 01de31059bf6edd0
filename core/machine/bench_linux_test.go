package machine

import (
	"testing"

	"capsem/core/link"
	"capsem/core/proto"
)

// BenchmarkExecRoundTrip is what the worker and the link add to a command that takes no time.
func BenchmarkExecRoundTrip(b *testing.B) {
	exit := frameOf(proto.KindStarted, `{"pid":1}`) + frameOf(proto.KindExit, `{"code":0}`)
	k := start(b, pretend(b, func(st link.Stream) {
		defer st.Close()
		var req proto.ExecRequest
		if proto.ReadFrame(st, proto.MaxFrame, &req) == nil {
			_, _ = st.Write([]byte(exit))
		}
	}))
	k.ready()
	b.ResetTimer()
	for b.Loop() {
		if o := collect(b, k.shell("true")); o.exit == nil {
			b.Fatalf("got %+v", o)
		}
	}
}

// BenchmarkStdout is bulk output through the worker.
func BenchmarkStdout(b *testing.B) {
	block := []byte(frameOf(proto.KindStdout, string(make([]byte, proto.MaxChunk))))
	k := start(b, pretend(b, func(st link.Stream) {
		defer st.Close()
		for {
			if _, err := st.Write(block); err != nil {
				return
			}
		}
	}))
	k.ready()
	r := proto.NewStreamReader(k.shell("cat /dev/zero"))
	b.SetBytes(proto.MaxChunk)
	for b.Loop() {
		if _, _, err := r.Next(); err != nil {
			b.Fatal(err)
		}
	}
}
