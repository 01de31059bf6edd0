//go:build vm

package vmtest

import (
	"os"
	"testing"
)

// A guest that goes on from a template, a suspend or an image trusts the CA that the installation has at that moment.
func TestEveryVMTrustsTheProxy(t *testing.T) {
	const ask = "curl -sS -o /dev/null -w '%{http_code}' --max-time 60 --resolve refused.invalid:443:192.0.2.1 https://refused.invalid/"
	in := newInstall(t, newHomeWithImage(t))
	in.want(0, "403", "", "run", ask)
	in.ok("create", "-n", "vm", "--ram", "512M", "--cpu", "1")
	in.want(0, "403", "", "exec", "vm", ask)
	in.ok("suspend", "vm")
	for _, name := range []string{in.home.CACert(), in.home.CAKey()} {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	in.ok("resume", "vm")
	in.want(0, "403", "", "exec", "vm", ask)
	in.ok("fork", "vm", "copy")
	in.want(0, "403", "", "run", "--image", "copy", ask)
	in.want(0, "", "", "exec", "vm", "test $(grep -c 'capsem: the CA of this install begins' /etc/ssl/certs/ca-certificates.crt) = 1")
	if info, err := os.Stat(in.home.CAKey()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, %v", info, err)
	}
}
