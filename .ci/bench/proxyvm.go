package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"capsem/core/api"
)

// proxyBulk is how much one download through the proxy of a VM moves, in bytes.
const proxyBulk = 64 << 20

// fromGuest makes requests over one connection, then downloads something large, and prints what that took.
const fromGuest = `import http.client, sys, time
c = http.client.HTTPConnection(sys.argv[1])
def get(path):
    c.request("GET", path)
    r = c.getresponse()
    n = 0
    while part := r.read(1 << 20):
        n += len(part)
    return n
for i in range(50):
    get("/small")
began = time.time()
for i in range(300):
    get("/small")
rate = 300 / (time.time() - began)
began = time.time()
n = get("/large")
print(rate, n / 1e6 / (time.time() - began))
`

// proxyVM measures requests and a download of a guest through the proxy of its VM, beside what the link itself carries.
func (b *bench) proxyVM(ctx context.Context) error {
	server, at, err := upstreamOfHost(ctx)
	if err != nil {
		return err
	}
	defer server.Close()
	vm, err := b.vm(ctx)
	if err != nil {
		return err
	}
	undo, err := b.allow(at)
	if err != nil {
		return err
	}
	defer undo()
	var requests, download []float64
	for range 4 {
		var reply api.ExecReply
		if err := b.api.call(ctx, http.MethodPost, "/exec/"+vm.ID, api.ExecRequest{Argv: []string{"python3", "-c", fromGuest, at.String()}}, &reply); err != nil {
			return err
		}
		var rate, speed float64
		if _, err := fmt.Sscan(reply.Stdout, &rate, &speed); err != nil {
			return fmt.Errorf("the guest's requests: %w: %.300s", err, reply.Stderr)
		}
		requests, download = append(requests, rate), append(download, speed)
	}
	raw, err := b.rawLink(ctx, vm)
	if err != nil {
		return err
	}
	b.add(
		newRow("a VM's requests through its proxy", "/s", requests[1:]).noted("One connection kept, one after another, by python in the guest; host and upstream included."),
		newRow("a VM's download through its proxy", "MB/s", download[1:]).against("raw link: one unframed stream from a guest process to the host", raw).
			noted("%d MiB to python in the guest.", proxyBulk>>20),
	)
	return nil
}

// rawLink is the rate of the link of a VM like one that is given up for it.
func (b *bench) rawLink(ctx context.Context, vm api.SandboxInfo) ([]float64, error) {
	spec, err := b.bareLike(ctx, &vm)
	if err == nil {
		err = b.dropVM(ctx)
	}
	if err != nil {
		return nil, err
	}
	bare, _, err := spec.boot(ctx)
	if err != nil {
		return nil, err
	}
	defer bare.close()
	var raw []float64
	for range 3 {
		rate, err := measured(func() (int64, error) { return bare.rawStream(ctx) })
		if err != nil {
			return nil, err
		}
		raw = append(raw, rate)
	}
	return raw, nil
}

// upstreamOfHost serves at an address of this host that is no loopback one: a guest has a loopback of its own.
func upstreamOfHost(ctx context.Context) (*http.Server, *net.TCPAddr, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok || n.IP.IsLoopback() || n.IP.To4() == nil {
			continue
		}
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(n.IP.String(), "0"))
		if err != nil {
			continue
		}
		mux := http.NewServeMux()
		mux.HandleFunc("/small", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello, world") })
		mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.CopyN(w, zeros{}, proxyBulk) })
		s := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
		go func() { _ = s.Serve(l) }() // until Close
		at, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			return nil, nil, errors.Join(errors.New("no TCP address"), s.Close())
		}
		return s, at, nil
	}
	return nil, nil, errors.New("this host has no IPv4 address but the loopback")
}

// zeros is as many as are wanted.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// allow opens an address to VMs, until undo is called.
func (b *bench) allow(at *net.TCPAddr) (undo func(), err error) {
	path := b.home.UserPolicy()
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open the way: %w", err)
	}
	rule := fmt.Sprintf("[[rule]]\nid = \"bench\"\neffect = \"allow\"\nhosts = [%q]\nports = [%d]\nschemes = [\"http\"]\ncidr = [\"%s/32\"]\n", at.IP, at.Port, at.IP)
	if err := os.WriteFile(path, []byte(strings.TrimSuffix(string(old), "\n")+"\n"+rule), 0o600); err != nil {
		return nil, fmt.Errorf("open the way: %w", err)
	}
	return func() {
		if err := os.WriteFile(path, old, 0o600); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}, nil
}
