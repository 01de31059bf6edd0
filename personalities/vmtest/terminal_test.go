//go:build vm

package vmtest

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tmux is a user's terminal.
type tmux struct {
	in     *install
	socket string
}

// onTerminal starts capsem in a terminal of 100x30.
func (in *install) onTerminal(t *testing.T, args ...string) *tmux {
	t.Helper()
	m := &tmux{in: in, socket: filepath.Join(t.TempDir(), "tmux")}
	line := "CAPSEM_HOME=" + in.home.Dir() + " " + in.bin + " " + strings.Join(args, " ") + "; echo ended with $?; sleep 1000"
	m.do(t, "-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", line)
	t.Cleanup(func() { _ = exec.Command("tmux", "-S", m.socket, "kill-server").Run() })
	return m
}

func (m *tmux) do(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "tmux", append([]string{"-S", m.socket}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("tmux %v: %v: %s", args, err, out)
	}
	return string(out)
}

func (m *tmux) typed(t *testing.T, keys ...string) {
	t.Helper()
	m.do(t, append([]string{"send-keys"}, keys...)...)
}

// shows waits until the screen shows a text.
func (m *tmux) shows(t *testing.T, text string) {
	t.Helper()
	m.in.until("the screen to show "+text+"; it shows:\n"+m.do(t, "capture-pane", "-p"), func() bool {
		return strings.Contains(m.do(t, "capture-pane", "-p"), text)
	})
}

// terminal enters the VM, resizes the window, leaves with Ctrl-] and comes back.
func terminal(t *testing.T, in *install) {
	m := in.onTerminal(t, "shell", "box")
	m.shows(t, "capsem:box")
	m.typed(t, "stty size; echo $((6*7))-there", "Enter")
	m.shows(t, "42-there")
	m.shows(t, "30 100")
	m.do(t, "resize-window", "-x", "77", "-y", "21")
	m.typed(t, "stty size", "Enter")
	m.shows(t, "21 77")
	m.typed(t, "C-]")
	m.shows(t, "ended with 0")
	again := in.onTerminal(t, "shell", "box")
	again.shows(t, "42-there") // the replay
	again.typed(t, "exit 5", "Enter")
	again.shows(t, "ended with")
}

func TestABareShellIsGoneWhenItsUserIs(t *testing.T) {
	in := newInstall(t, newHomeWithImage(t))
	m := in.onTerminal(t, "shell", "--ram", "512M")
	m.shows(t, "capsem:")
	if n := len(in.vms()); n != 1 {
		t.Fatalf("%d VMs run", n)
	}
	m.typed(t, "C-]")
	m.shows(t, "capsem persist")
	in.until("the VM to be gone", func() bool { return len(in.vms()) == 0 })

	closed := in.onTerminal(t, "shell", "--ram", "512M")
	closed.shows(t, "capsem:")
	closed.do(t, "kill-server")
	in.until("the VM of a closed terminal to be gone", func() bool { return len(in.vms()) == 0 })
}
