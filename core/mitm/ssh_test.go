package mitm

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"capsem/core/ledger"
)

func TestAClientOfSSHIsToldWhyItDoesNotGetThrough(t *testing.T) {
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		t.Fatal("ssh is not there; .ci/deps test installs it: ", err)
	}
	g := newRig(t, rules)
	in, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		client, err := in.Accept()
		if err != nil {
			return
		}
		guest, err := g.connect(g.ctx, "shut.test:22")
		if err != nil {
			t.Error(err)
			return
		}
		go func() { _, _ = io.Copy(guest, client) }()
		_, _ = io.Copy(client, guest)
		_ = guest.Close()
		_ = client.Close()
	}()
	_, port, _ := net.SplitHostPort(in.Addr().String())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, ssh, "-F", "none", "-o", "BatchMode=yes", "-o", "UserKnownHostsFile=/dev/null", "-p", port, "git@127.0.0.1")
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "capsem: SSH to shut.test is not open") || !strings.Contains(string(out), "use HTTPS") {
		t.Errorf("%v: %s", err, out)
	}
	<-served
	g.rows.one(t, "the refused connection", func(e ledger.NetEvent) bool { return e.Domain == "shut.test" && e.Port == 22 && e.Decision == "denied" })
}

func TestSSHPacketsAreWhole(t *testing.T) {
	for n := range 40 {
		if p := sshPacket(make([]byte, n)); len(p)%8 != 0 || p[4] < 4 || int(p[3]) != len(p)-4 {
			t.Errorf("%d: %v", n, p)
		}
	}
}
