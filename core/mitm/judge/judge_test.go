package judge

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"capsem/core/mitm/flow"
	"capsem/core/policy"
)

// plainPolicy is a policy without an owner to ask: an ask is a deny.
type plainPolicy struct{ *policy.Policy }

func (p plainPolicy) Judge(_ context.Context, req *policy.Request) policy.Verdict {
	if req.Addr.IsValid() {
		return p.DecideDial(req, req.Addr)
	}
	return p.Decide(req)
}

func (p plainPolicy) Continue(ctx context.Context, req *policy.Request, _ policy.Verdict) policy.Verdict {
	return p.Judge(ctx, req)
}

func modifier(t *testing.T, text string) *Modifier {
	t.Helper()
	set, err := policy.Parse(text, policy.LayerUser)
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Compile(set)
	if err != nil {
		t.Fatal(err)
	}
	return New(plainPolicy{p})
}

const rule = "[[rule]]\nid = \"r\"\neffect = \"allow\"\nreason = \"why\"\nhosts = [\"a.test\"]\n"

func request(t *testing.T, method, url string, body io.Reader) (*http.Request, *flow.Flow) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	f := &flow.Flow{VM: "vm", Host: req.URL.Hostname(), Port: 443, Scheme: req.URL.Scheme, Header: req.Header.Clone()}
	return req.WithContext(flow.With(req.Context(), f)), f
}

func TestOnlyWhatThePolicyAllowsPasses(t *testing.T) {
	m := modifier(t, rule+"paths = [\"/a/**\"]\nmethods = [\"GET\"]\nheaders = [\"X-Key: yes\"]\n")
	for _, c := range []struct {
		method, url, key string
		pass             bool
	}{
		{"GET", "https://a.test/a/b", "yes", true},
		{"GET", "https://a.test/a/b", "no", false},
		{"POST", "https://a.test/a/b", "yes", false},
		{"GET", "https://a.test/b", "yes", false},
		{"GET", "https://a.test/a/%2e%2e/b", "yes", false},
		{"GET", "https://b.test/a/b", "yes", false},
		{"GET", "http://a.test/a/b", "yes", false},
	} {
		req, f := request(t, c.method, c.url, nil)
		f.Header.Set("X-Key", c.key)
		err := m.ModifyRequest(req)
		var refused *flow.Refusal
		if c.pass != (err == nil) || err != nil && (!errors.As(err, &refused) || refused.Status != http.StatusForbidden || len(refused.Body) == 0) {
			t.Errorf("%+v: %v", c, err)
		}
		if got := f.Verdict().Effect; (got == policy.Allow) != c.pass {
			t.Errorf("%+v: verdict %v", c, got)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://a.test/a/b", nil)
	if err != nil || m.ModifyRequest(req) == nil {
		t.Error("a request without a flow passes")
	}
}

// A proxy takes out what Connection names.
func TestAFieldThatIsNotPassedOnDoesNotCount(t *testing.T) {
	m := modifier(t, rule+"headers = [\"X-Dry-Run: yes\"]\n")
	for connection, pass := range map[string]bool{"": true, "keep-alive": true, "keep-alive, X-Dry-Run": false, "close,x-dry-run ": false} {
		req, f := request(t, http.MethodGet, "https://a.test/", nil)
		f.Header.Set("X-Dry-Run", "yes")
		if connection != "" {
			f.Header.Set("Connection", connection)
		}
		if err := m.ModifyRequest(req); pass != (err == nil) {
			t.Errorf("Connection: %s: %v", connection, err)
		}
		if f.Header.Get("X-Dry-Run") == "" {
			t.Error("the record no longer has what the guest sent")
		}
	}
}

func TestAddressesAreJudgedAsTheRequestIs(t *testing.T) {
	m := modifier(t, rule+"cidr = [\"10.0.0.0/8\"]\n")
	req, f := request(t, http.MethodGet, "https://a.test/", nil)
	if m.Address(t.Context(), f, netip.MustParseAddr("8.8.8.8")) == nil {
		t.Error("an address before the request was judged")
	}
	if err := m.ModifyRequest(req); err != nil {
		t.Fatal(err)
	}
	for addr, pass := range map[string]bool{"8.8.8.8": true, "10.1.2.3": true, "::ffff:10.1.2.3": true, "127.0.0.1": false, "192.168.1.1": false, "::1": false} {
		if err := m.Address(t.Context(), f, netip.MustParseAddr(addr)); (err == nil) != pass {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestABodyIsReadAsFarAsThePolicyAllows(t *testing.T) {
	m := modifier(t, rule+"max_body = 10\n")
	for size, pass := range map[int]bool{0: true, 10: true, 11: false, 1000: false} {
		req, f := request(t, http.MethodPost, "https://a.test/", io.MultiReader(strings.NewReader(strings.Repeat("x", size))))
		req.ContentLength = -1
		if err := m.ModifyRequest(req); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(req.Body)
		if pass != (err == nil) || pass && len(got) != size || !pass && (len(got) > 10 || f.Verdict().Effect != policy.Deny) {
			t.Errorf("%d: %d bytes, %v", size, len(got), err)
		}
		if _, again := req.Body.Read(make([]byte, 1)); !pass && again == nil {
			t.Error("it goes on after a refusal")
		}
	}
	// A rule that stops further on than another is not missed.
	m = modifier(t, rule+"max_body = 10\n"+strings.Replace(rule, "\"r\"", "\"s\"", 1)+"max_body = 20\n")
	req, _ := request(t, http.MethodPost, "https://a.test/", nil)
	req.ContentLength, req.Body = -1, io.NopCloser(&drip{left: 30})
	if err := m.ModifyRequest(req); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(req.Body); len(got) != 20 || err == nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// drip gives a byte at a time.
type drip struct{ left int }

func (d *drip) Read(p []byte) (int, error) {
	if d.left == 0 {
		return 0, io.EOF
	}
	d.left--
	return copy(p, "x"), nil
}

func TestWhatLastsIsJudgedAgain(t *testing.T) {
	m := modifier(t, rule)
	req, f := request(t, http.MethodGet, "wss://a.test/", nil)
	if err := m.ModifyRequest(req); err != nil {
		t.Fatal(err)
	}
	if err := m.Still(f); err != nil {
		t.Error(err)
	}
	later := modifier(t, strings.ReplaceAll(rule, "a.test", "b.test"))
	if err := later.Still(f); err == nil || f.Verdict().Effect != policy.Deny {
		t.Errorf("%v %+v", err, f.Verdict())
	}
}
