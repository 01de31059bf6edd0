package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// rivalStart is how long mitmproxy may take to start: it is Python, and makes its CA first.
const rivalStart = 30 * time.Second

// mitmproxyRates measures Debian's mitmproxy as a reverse proxy before an https upstream, whose certificate is of an authority in the file
// roots, with TLS on both sides: requests a second of each round of so many kept-alive connections.
func (b *bench) mitmproxyRates(ctx context.Context, upstream, roots string, connections int) ([]float64, error) {
	r, err := b.startMitmproxy(ctx, upstream, roots)
	if err != nil {
		return nil, err
	}
	defer r.stop()
	client, err := r.client(connections)
	if err != nil {
		return nil, err
	}
	defer client.CloseIdleConnections()
	var rates []float64
	for round := range rounds + 1 {
		rate, err := requestRate(ctx, client, "https://"+r.addr+"/", connections, 2*time.Second)
		if err != nil {
			return nil, fmt.Errorf("requests through mitmproxy: %w", err)
		}
		if round > 0 { // in the first the connections are made
			rates = append(rates, rate)
		}
	}
	return rates, nil
}

// rival is a mitmdump that runs.
type rival struct {
	addr, ca string
	cmd      *exec.Cmd
}

func (b *bench) startMitmproxy(ctx context.Context, upstream, roots string) (*rival, error) {
	program, err := exec.LookPath("mitmdump")
	if err != nil {
		return nil, fmt.Errorf("no mitmproxy (run .ci/deps bench): %w", err)
	}
	dir, err := os.MkdirTemp(b.tmp, "mitmproxy-")
	if err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	r := &rival{addr: net.JoinHostPort("localhost", strconv.Itoa(port)), ca: filepath.Join(dir, "mitmproxy-ca-cert.pem")}
	r.cmd = exec.CommandContext(ctx, program, "--quiet", "--mode", "reverse:https://"+upstream, "--listen-host", "127.0.0.1", "--listen-port", strconv.Itoa(port),
		"--set", "confdir="+dir, "--set", "ssl_verify_upstream_trusted_ca="+roots, "--set", "flow_detail=0")
	r.cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start mitmproxy: %w", err)
	}
	if err := r.ready(ctx); err != nil {
		r.stop()
		return nil, err
	}
	return r, nil
}

// ready waits until it listens and has made its CA.
func (r *rival) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, rivalStart, errors.New("mitmproxy does not start"))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.addr)
		if err == nil {
			_ = conn.Close()
			if _, err = os.Stat(r.ca); err == nil {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

func (r *rival) stop() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

// client trusts its CA.
func (r *rival) client(connections int) (*http.Client, error) {
	text, err := os.ReadFile(r.ca)
	if err != nil {
		return nil, fmt.Errorf("read mitmproxy's CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New("mitmproxy's CA is no certificate")
	}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections,
		DisableCompression: true,
	}}, nil
}

// requestRate sends requests on so many connections for a while, each after the answer to the one before, and returns how many a second.
func requestRate(ctx context.Context, client *http.Client, url string, connections int, span time.Duration) (float64, error) {
	var (
		sending sync.WaitGroup
		counts  = make([]int, connections)
		errs    = make([]error, connections)
	)
	began := time.Now()
	for i := range connections {
		sending.Go(func() {
			for time.Since(began) < span && errs[i] == nil {
				errs[i] = get(ctx, client, url)
				counts[i]++
			}
		})
	}
	sending.Wait()
	total := 0
	for _, n := range counts {
		total += n
	}
	return float64(total) / time.Since(began).Seconds(), errors.Join(errs...)
}

// get reads one answer to its end.
func get(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return fmt.Errorf("make a request: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("send a request: %w", err)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return fmt.Errorf("read an answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the answer is %s", resp.Status)
	}
	return nil
}

// freePort is a port of the loopback that nobody uses at this moment.
func freePort(ctx context.Context) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a port: %w", err)
	}
	defer l.Close()
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, errors.New("find a port: no TCP address")
	}
	return addr.Port, nil
}
