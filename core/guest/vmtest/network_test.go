//go:build vm

package vmtest

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"capsem/core/approval"
	"capsem/core/dns"
	"capsem/core/guestlink"
	"capsem/core/ledger"
	"capsem/core/link"
	"capsem/core/mitm"
	"capsem/core/mitm/authority"
	"capsem/core/mitm/egress"
	"capsem/core/policy"
	"capsem/core/proto"
)

// way is the host's end of a guest's network under a policy that allows nothing, as the worker has it.
type way struct {
	ca    *authority.Authority
	names *dns.Server
	proxy *mitm.Server
}

// judging is the judge as the proxy asks it.
type judging struct{ *judgeOf }

// judgeOf is a Judge by a name that is no method of it.
type judgeOf = approval.Judge

func (j judging) Refusal(v policy.Verdict, req *policy.Request) policy.Refusal {
	return j.Policy().Refusal(v, req)
}

// unrecorded drops what is to be recorded, questions too.
type unrecorded struct{}

func (unrecorded) RecordNet(ledger.NetEvent)                    {}
func (unrecorded) RecordDNS(dns.Event)                          {}
func (unrecorded) Asked(approval.Question)                      {}
func (unrecorded) Answered(approval.Question, approval.Outcome) {}

func newWay(t *testing.T) *way {
	t.Helper()
	var w way
	rules, err := policy.Compile()
	if err != nil {
		t.Fatal(err)
	}
	board := approval.NewBoard(approval.Config{Recorder: unrecorded{}, Timeout: time.Second})
	t.Cleanup(board.Close)
	judge := judging{approval.NewJudge(rules, board)}
	resolver, err := dns.NewResolver(context.WithoutCancel(t.Context()), dns.ResolverConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(resolver.Close)
	if w.names, err = dns.NewServer(dns.Config{VM: "vm-1", Hostname: "box", Judge: judge, Recorder: unrecorded{}, Resolver: resolver}); err != nil {
		t.Fatal(err)
	}
	if w.ca, err = authority.LoadOrCreate(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	dialer, err := egress.New(egress.Config{Resolver: resolver})
	if err != nil {
		t.Fatal(err)
	}
	w.proxy, err = mitm.New(context.WithoutCancel(t.Context()), mitm.Config{
		VM: "vm-1", Policy: judge, Names: w.names, Authority: w.ca, Dialer: dialer, Recorder: unrecorded{}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.proxy.Close)
	return &w
}

// services are the ports that the guest's lookups and connections come to.
func (w *way) services() map[proto.Port]guestlink.Service {
	return map[proto.Port]guestlink.Service{
		proto.PortDNS: {Max: 8, Serve: func(ctx context.Context, st link.Stream) { _ = w.names.Serve(ctx, st) }},
		proto.PortNetwork: {Max: 100, Serve: func(ctx context.Context, st link.Stream) {
			var open proto.NetworkOpen
			if err := proto.ReadFrame(st, proto.MaxFrame, &open); err == nil && open.Validate() == nil {
				w.proxy.Serve(ctx, st, open)
			}
		}},
	}
}

// trust has the programs of the guest shake hands with the proxy: it refuses every request, and all of them can read that.
func trust(ctx context.Context, t *testing.T, v *vm) {
	const url = "https://refused.invalid/"
	for name, command := range map[string]string{
		"curl":    "curl -sS -o /dev/null -w '%{http_code}' --resolve refused.invalid:443:192.0.2.1 " + url,
		"openssl": "openssl s_client -brief -verify_return_error -verify_hostname refused.invalid -servername refused.invalid -connect 192.0.2.1:443 </dev/null 2>&1 | grep -i verif",
		"git":     "git -c http.curloptResolve=refused.invalid:443:192.0.2.1 ls-remote " + url + " 2>&1 | cat",
		"python": `python3 -c '
import socket, ssl
with ssl.create_default_context().wrap_socket(socket.create_connection(("192.0.2.1", 443)), server_hostname="refused.invalid") as s:
    s.sendall(b"GET / HTTP/1.1\r\nHost: refused.invalid\r\n\r\n")
    print(s.recv(1000).split()[1].decode())
'`,
		"login shell": "bash -lc 'curl -sS -o /dev/null -w %{http_code} --cacert $SSL_CERT_FILE --resolve refused.invalid:443:192.0.2.1 " + url + "'",
	} {
		want := "403"
		if name == "openssl" {
			want = "Verification: OK"
		}
		if got := v.shell(ctx, t, command); !strings.Contains(got, want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	v.shell(ctx, t, "! curl -sS --cacert /dev/null --resolve refused.invalid:443:192.0.2.1 "+url+" 2>/dev/null")
	if got := v.shell(ctx, t, "find / -xdev -name 'ca.key' -o -path /proc -prune -name ca.key; grep -rl 'PRIVATE KEY' /usr/local/share/ca-certificates /etc/ssl/certs || true"); got != "" {
		t.Errorf("a key in the guest: %s", got)
	}
}
