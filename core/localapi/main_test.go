package localapi_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"capsem/core/api"
	"capsem/core/client"
	"capsem/core/localapi"
	"capsem/core/paths"
	"capsem/core/proto"
	"capsem/core/safesocket"
	"capsem/core/service/servicetest"
)

// TestMain lets this binary be a worker without a VM.
func TestMain(m *testing.M) {
	if servicetest.IsWorker(os.Args) {
		os.Exit(servicetest.Worker(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// served is a service in this process, on a real socket, with workers that are real processes.
type served struct {
	*client.Client
	t    testing.TB
	home paths.Home
	stop func()
}

func serve(t testing.TB) *served {
	t.Helper()
	home := servicetest.Home(t)
	svc, _ := servicetest.Start(t, servicetest.Options(t, home))
	ctx, cancel := context.WithCancel(context.Background())
	server, err := localapi.New(svc, slog.New(slog.DiscardHandler), cancel)
	if err != nil {
		t.Fatal(err)
	}
	l, err := safesocket.Listen(ctx, home.ServiceSocket())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return &served{client.New(home, client.Options{}), t, home, stop}
}

// vm makes an unnamed VM.
func (s *served) vm() string {
	s.t.Helper()
	reply, err := s.Provision(s.t.Context(), api.ProvisionRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	return reply.ID
}

// raw sends a request as it is given, for what the client would never send.
func (s *served) raw(method, path, body string, headers map[string]string) (int, string, http.Header) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for k, v := range headers {
		if k == "Host" {
			req.Host = v
		}
		req.Header.Set(k, v)
	}
	conn, err := safesocket.Dial(s.t.Context(), s.home.ServiceSocket())
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	if err := req.Write(conn); err != nil && !errors.Is(err, os.ErrClosed) {
		s.t.Log("write:", err) // the answer may come before all is read
	}
	resp, err := http.ReadResponse(bufioReader(conn), req)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp.StatusCode, "", resp.Header
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(text), resp.Header
}

// frames reads a stream to its end: what was written to each output, and the exit.
func frames(t testing.TB, r io.Reader) (stdout, stderr, exit string) {
	t.Helper()
	in := proto.NewStreamReader(r)
	for {
		kind, data, err := in.Next()
		if err != nil {
			return stdout, stderr, exit
		}
		switch kind {
		case proto.KindStdout:
			stdout += string(data)
		case proto.KindStderr:
			stderr += string(data)
		case proto.KindExit, proto.KindError:
			exit = string(data)
		}
	}
}
