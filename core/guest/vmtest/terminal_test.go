//go:build vm

package vmtest

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"capsem/core/guest/guesttest"
	"capsem/core/link"
	"capsem/core/proto"
)

func (v *vm) view(ctx context.Context, t *testing.T, name string) link.Stream {
	t.Helper()
	st, err := v.Terminal(ctx, &proto.TerminalOpen{Session: name, Size: proto.WindowSize{Cols: 80, Rows: 24}})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func terminals(ctx context.Context, t *testing.T, v *vm) {
	st := v.view(ctx, t, "work")
	guesttest.Send(t, st, proto.KindStdin, "stty -echo; tty; stty size; echo rea''dy\n")
	if got := guesttest.Until(t, st, "ready").Stdout; !strings.Contains(got, "/dev/pts/") || !strings.Contains(got, "24 80") {
		t.Errorf("%q", got)
	}
	size, err := json.Marshal(proto.WindowSize{Cols: 133, Rows: 44})
	if err != nil {
		t.Fatal(err)
	}
	guesttest.Send(t, st, proto.KindResize, string(size))
	guesttest.Send(t, st, proto.KindStdin, "stty size; for i in {10000..29999}; do echo line-$i; done; echo all''done\n")
	guesttest.Until(t, st, "44 133")
	guesttest.Until(t, st, "alldone")
	_ = st.Close()
	late := v.view(ctx, t, "work")
	defer late.Close()
	replay := guesttest.Until(t, late, "alldone").Stdout
	if len(replay) < 64<<10 || strings.Contains(replay, "line-10000") || !strings.Contains(replay, "line-29999") {
		t.Errorf("a late viewer is shown %d bytes", len(replay))
	}
	guesttest.Send(t, late, proto.KindStdin, "exit 5\n")
	if got := guesttest.Collect(t, late); got.Exit.Code != 5 {
		t.Errorf("%+v", *got.Exit)
	}
}

// The guest asks; that the host then shuts it down is the worker's part.
func powerCommands(ctx context.Context, t *testing.T, v *vm) {
	for command, want := range map[string]proto.LifecycleAction{
		"shutdown now": proto.ActionPoweroff, "halt": proto.ActionPoweroff, "poweroff": proto.ActionPoweroff, "reboot": proto.ActionReboot,
		"shutdown -r now": proto.ActionReboot, "suspend": proto.ActionSuspend,
	} {
		got := v.run(ctx, t, &proto.ExecRequest{Command: "exec " + command})
		select {
		case asked := <-v.asked:
			if asked.Action != want {
				t.Errorf("%s asks for %s", command, asked.Action)
			}
		case <-ctx.Done():
			t.Fatalf("%s asks for nothing: %+v %q", command, *got.Exit, got.Stderr)
		}
		if refused := want == proto.ActionSuspend; refused != (got.Exit.Code != 0) || refused && !strings.Contains(got.Stderr, "no name") {
			t.Errorf("%s: %+v, %q", command, *got.Exit, got.Stderr)
		}
	}
}
