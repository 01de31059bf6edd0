//go:build vm

package vmtest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"capsem/core/guest/guesttest"
	"capsem/core/proto"
)

func commands(ctx context.Context, t *testing.T, v *vm) {
	for name, c := range map[string]struct {
		req            proto.ExecRequest
		code           int
		signal         string
		stdout, stderr string
	}{
		"argv":           {proto.ExecRequest{Argv: []string{"echo", "a b", "$HOME"}}, 0, "", "a b $HOME\n", ""},
		"shell":          {proto.ExecRequest{Command: "echo out; echo err >&2; exit 3"}, 3, "", "out\n", "err\n"},
		"directory":      {proto.ExecRequest{Command: "pwd", Dir: "/usr/bin"}, 0, "", "/usr/bin\n", ""},
		"home":           {proto.ExecRequest{Command: "pwd; id -u"}, 0, "", "/root\n0\n", ""},
		"environment":    {proto.ExecRequest{Command: "echo $A $FROM_HOST", Env: map[string]string{"A": "1"}}, 0, "", "1 yes\n", ""},
		"signal":         {proto.ExecRequest{Command: "kill -KILL $$"}, 137, "SIGKILL", "", ""},
		"missing":        {proto.ExecRequest{Argv: []string{"no-such-program"}}, 127, "", "", ""},
		"not executable": {proto.ExecRequest{Argv: []string{"/etc/passwd"}}, 126, "", "", ""},
		"no directory":   {proto.ExecRequest{Command: "true", Dir: "/none"}, 126, "", "", ""},
	} {
		got := v.run(ctx, t, &c.req)
		if got.Exit.Code != c.code || got.Exit.Signal != c.signal || got.Stdout != c.stdout || got.Stderr != c.stderr {
			t.Errorf("%s: %+v, %q, %q", name, *got.Exit, got.Stdout, got.Stderr)
		}
	}
	if got := v.run(ctx, t, &proto.ExecRequest{Command: "sleep 0.3"}); got.Exit.DurationUS < 300_000 {
		t.Errorf("sleep 0.3 took %d us", got.Exit.DurationUS)
	}
	if got := v.run(ctx, t, &proto.ExecRequest{Command: "sleep 1000", TimeoutMS: 200}); !got.Exit.TimedOut {
		t.Errorf("a time limit: %+v", *got.Exit)
	}
	st, err := v.Exec(ctx, &proto.ExecRequest{Argv: []string{"cat"}, Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for _, text := range []string{"one ", "two", ""} {
		guesttest.Send(t, st, proto.KindStdin, text)
	}
	if got := guesttest.Collect(t, st); got.Stdout != "one two" || got.Exit.Code != 0 {
		t.Errorf("cat gave %q, %+v", got.Stdout, *got.Exit)
	}
}

func manyCommands(ctx context.Context, t *testing.T, v *vm) {
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			word := fmt.Sprintf("word-%02d\n", i)
			st, err := v.Exec(ctx, &proto.ExecRequest{Command: fmt.Sprintf("for i in {1..500}; do echo word-%02d; done; exit %d", i, i)})
			if err != nil {
				t.Error(err)
				return
			}
			defer st.Close()
			got, n := strings.Builder{}, 0
			for r := proto.NewStreamReader(st); ; n++ {
				kind, data, err := r.Next()
				if err != nil {
					t.Error(err)
					return
				}
				if kind == proto.KindExit {
					break
				}
				if kind == proto.KindStdout {
					got.Write(data)
				}
			}
			if got.String() != strings.Repeat(word, 500) {
				t.Errorf("command %d printed %d bytes, %.40q", i, got.Len(), got.String())
			}
		})
	}
	wg.Wait()
}

// A command that writes much to a reader that does not read is held up, and the agent stays small.
func slowReader(ctx context.Context, t *testing.T, v *vm) {
	st, err := v.Exec(ctx, &proto.ExecRequest{Command: "head -c 1G /dev/zero; echo done >&2"})
	if err != nil {
		t.Fatal(err)
	}
	r := proto.NewStreamReader(st)
	if _, _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	const agent = `pid=$(pgrep -o -x agent || pgrep -o -f bin/agent); awk '/VmRSS/{print $2}' /proc/$pid/status`
	before := ""
	guesttest.Eventually(t, "the command is held up", func() bool { // it stands still: pv of its output counter
		now := v.shell(ctx, t, "awk '/^wchar/{print $2}' /proc/$(pgrep -n -x head)/io")
		same := now == before
		before = now
		return same
	})
	if kb := guesttest.PID(t, v.shell(ctx, t, agent)); kb > 48<<10 {
		t.Errorf("the agent takes %d KiB while a command is held up", kb)
	}
	_ = st.Close()
	guesttest.Eventually(t, "the command is gone", func() bool { return v.shell(ctx, t, "pgrep -x head || true") == "" })
}

func cancelled(ctx context.Context, t *testing.T, v *vm) {
	st, err := v.Exec(ctx, &proto.ExecRequest{Command: "sleep 4321 & setsid sleep 4322 & sleep 4323"})
	if err != nil {
		t.Fatal(err)
	}
	guesttest.Eventually(t, "all run", func() bool { return strings.Count(v.shell(ctx, t, "pgrep -x sleep || true"), "\n") >= 3 })
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	guesttest.Eventually(t, "all are gone", func() bool { return v.shell(ctx, t, "pgrep -x sleep || true") == "" })
}

// Processes whose parent has ended are nobody's but init's.
func reaping(ctx context.Context, t *testing.T, v *vm) {
	v.shell(ctx, t, "for i in {1..30}; do (setsid sleep 0.01 &>/dev/null &); done")
	guesttest.Eventually(t, "no zombie is left", func() bool {
		return v.shell(ctx, t, "sleep 0.1; grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null || true") == ""
	})
}
