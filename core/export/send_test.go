package export

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

func TestOTLPIsSentToACollector(t *testing.T) {
	var mu sync.Mutex
	got := map[string]int{}
	busy := 2
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if busy--; busy >= 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || !json.Valid(body) || r.Header.Get("Content-Type") != "application/json" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		got[r.URL.Path] += strings.Count(string(body), `"spanId"`) + strings.Count(string(body), `"sum"`)
	}))
	defer srv.Close()
	to, err := Endpoint(srv.URL + "/otlp/")
	if err != nil {
		t.Fatal(err)
	}
	text := exported(t, record(t, everything()...), OTLP)
	if err := Send(t.Context(), strings.NewReader(text), to); err != nil {
		t.Fatal(err)
	}
	if got["/otlp/v1/traces"] != 8 || got["/otlp/v1/metrics"] != 9 {
		t.Errorf("%v", got)
	}
}

func TestACollectorThatRefusesEndsIt(t *testing.T) {
	tries := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		tries++
		http.Error(w, "who are you?", http.StatusUnauthorized)
	}))
	defer srv.Close()
	to, err := Endpoint(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	if err := Send(t.Context(), strings.NewReader("{}\n{}\n"), to); err == nil || !strings.Contains(err.Error(), "401") || tries != 1 {
		t.Errorf("%d tries, %v", tries, err)
	}
	for _, bad := range []string{"", "localhost:4318", "ftp://x", "http://", "http://x/?a=b", "http://x/%zz"} {
		if u, err := Endpoint(bad); err == nil {
			t.Errorf("%q is %v", bad, u)
		}
	}
}
