package fault

import (
	"errors"
	"fmt"
	"testing"
)

func TestTextShowsTheFurtherLinesOfAMessageBelowIt(t *testing.T) {
	err := New(Timeout, "not ready\nlast of the console:\n\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS (1.16)\n\n\tBooting\x1b[1;31m red").WithHint("see the log")
	if got, want := Text(err), "not ready; see the log\n  last of the console:\n  SeaBIOS (1.16)\n  Booting red"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := Line(err); got != "not ready; see the log" {
		t.Errorf("%q", got)
	}
}

func TestLineIsOnePlainLineThatSaysWhatToDo(t *testing.T) {
	public := New(NotFound, "there is no VM %q", "x").WithHint("see capsem list")
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"nothing":             {nil, ""},
		"explained already":   {&Exit{Status: 3}, ""},
		"message and hint":    {public, `there is no VM "x"; see capsem list`},
		"wrapped":             {fmt.Errorf("call service: %w", public), `there is no VM "x"; see capsem list`},
		"exit with a reason":  {&Exit{Status: ExitCapsem, Err: public}, `there is no VM "x"; see capsem list`},
		"cause is not shown":  {Wrap(errors.New("dial unix"), Unavailable, "the service is down"), "the service is down"},
		"any other error":     {errors.New("read file: gone"), "read file: gone"},
		"several lines":       {errors.New("a\n\tb\r\nc"), "a b c"},
		"escape from a guest": {errors.New("last log: \x1b]0;owned\x07 \u009b31m"), "last log:"},
	} {
		if got := Line(c.err); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
