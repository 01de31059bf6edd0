package live

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"capsem/core/ledger"
)

func fileLines(t *testing.T, path string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	return strings.Count(string(text), "\n")
}

// collected is a collector over HTTP that decodes what it gets by the published definitions, and keeps nothing that does not fit.
type collected struct {
	t  *testing.T
	mu sync.Mutex
	// busy is how many requests are still turned away; partly is an answer that takes some of it only.
	busy    int
	refuse  bool
	partly  string
	spans   []*traces.Span
	metrics []*metrics.Metric
	raw     strings.Builder
	session map[string]bool
}

// ids makes base64 of the ids: OTLP has them in hex, which is the one way in which it differs from the JSON of protobuf.
func ids(v any) {
	switch v := v.(type) {
	case map[string]any:
		for key, x := range v {
			if text, ok := x.(string); ok && strings.HasSuffix(key, "Id") {
				if b, err := hex.DecodeString(text); err == nil {
					v[key] = base64.StdEncoding.EncodeToString(b)
				}
			}
			ids(x)
		}
	case []any:
		for _, x := range v {
			ids(x)
		}
	}
}

func (c *collected) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy--; c.busy >= 0 {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if c.refuse {
		http.Error(w, "no", http.StatusBadRequest)
		return
	}
	if err := c.take(r); err != nil {
		c.t.Error(err)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "{"+c.partly+"}")
}

func (c *collected) take(r *http.Request) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	c.raw.Write(body)
	if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
		return fmt.Errorf("%s %v", r.Method, r.Header)
	}
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		return err
	}
	ids(v)
	if body, err = json.Marshal(v); err != nil {
		return err
	}
	switch r.URL.Path {
	case "/v1/traces":
		var d traces.TracesData
		if err := protojson.Unmarshal(body, &d); err != nil {
			return fmt.Errorf("%w: %.300s", err, body)
		}
		for _, rs := range d.GetResourceSpans() {
			for _, a := range rs.GetResource().GetAttributes() {
				if a.GetKey() == "service.instance.id" {
					c.session[a.GetValue().GetStringValue()] = true
				}
			}
			for _, ss := range rs.GetScopeSpans() {
				c.spans = append(c.spans, ss.GetSpans()...)
			}
		}
	case "/v1/metrics":
		var d metrics.MetricsData
		if err := protojson.Unmarshal(body, &d); err != nil {
			return fmt.Errorf("%w: %.300s", err, body)
		}
		for _, rm := range d.GetResourceMetrics() {
			for _, sm := range rm.GetScopeMetrics() {
				c.metrics = append(c.metrics, sm.GetMetrics()...)
			}
		}
	default:
		return fmt.Errorf("a request for %s", r.URL)
	}
	return nil
}

// sum is the last value of a counter.
func (c *collected) sum(name string) (n int64) {
	for _, m := range c.metrics {
		if m.GetName() == name {
			n = 0
			for _, p := range m.GetSum().GetDataPoints() {
				n += p.GetAsInt()
			}
		}
	}
	return n
}

func TestACollectorGetsTracesAndMetricsOfAllSessions(t *testing.T) {
	c := &collected{t: t, busy: 2, session: map[string]bool{}}
	srv := httptest.NewServer(c)
	defer srv.Close()
	h := newHome(t, map[string]Target{OTLP: {To: srv.URL}})
	m, _ := h.manager()
	for _, s := range []string{"a", "b"} {
		w := h.begin(s)
		m.Follow(s)
		for i := range 300 {
			w.Record(request(i))
		}
		w.Record(ledger.ModelCall{
			Time: time.Now(), Provider: "anthropic", Model: "claude-x", Status: 200, InputTokens: 100, OutputTokens: 7, CostUSD: 0.25, Duration: time.Second, TraceID: "t",
			Calls: []ledger.ToolCall{{CallID: "c", Tool: "bash", Arguments: secret}},
		})
		w.Record(ledger.ExecEvent{Time: time.Now(), Command: "curl -H 'Authorization: Bearer " + secret + "' x", ExitCode: 2})
		h.end(s)
	}
	eventually(t, "the metrics of both", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.spans) == 2*303 && len(c.metrics) > 0
	})
	eventually(t, "a note that all was sent", func() bool { return loadState(h.state("a", OTLP)).Done && loadState(h.state("b", OTLP)).Done })
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := map[string]bool{}
	for _, s := range c.spans {
		id := string(s.GetTraceId()) + string(s.GetSpanId())
		if len(s.GetTraceId()) != 16 || len(s.GetSpanId()) != 8 || seen[id] || s.GetName() == "" || s.GetStartTimeUnixNano() == 0 || s.GetEndTimeUnixNano() < s.GetStartTimeUnixNano() {
			t.Errorf("%v", s)
		}
		seen[id] = true
	}
	for _, s := range c.spans {
		if p := s.GetParentSpanId(); len(p) > 0 && !seen[string(s.GetTraceId())+string(p)] {
			t.Errorf("nobody's child: %v", s)
		}
	}
	if c.sum("capsem.requests") != 300 || c.sum("gen_ai.client.tokens") != 107 || len(c.session) != 2 {
		t.Errorf("requests %d, tokens %d, sessions %v", c.sum("capsem.requests"), c.sum("gen_ai.client.tokens"), c.session)
	}
	if strings.Contains(c.raw.String(), secret) {
		t.Error("a secret")
	}
}

func TestWhatACollectorDoesNotTakeIsCounted(t *testing.T) {
	for name, c := range map[string]*collected{
		"refused":  {t: t, refuse: true, session: map[string]bool{}},
		"in parts": {t: t, partly: `"partialSuccess":{"rejectedSpans":"3","errorMessage":"too old"}`, session: map[string]bool{}},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(c)
			defer srv.Close()
			h := newHome(t, map[string]Target{OTLP: {To: srv.URL}})
			m, _ := h.manager()
			w := h.begin("a")
			m.Follow("a")
			w.Record(request(1))
			h.end("a")
			eventually(t, "a word in the log", func() bool { return strings.Contains(h.log.String(), "events were not exported") })
			eventually(t, "the end", func() bool { return loadState(h.state("a", OTLP)).Done })
		})
	}
}

// TestATargetThatHangsHoldsUpNothing: a record grows while nobody takes what is in it.
func TestATargetThatHangsHoldsUpNothing(t *testing.T) {
	hang := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	defer srv.Close()
	defer close(hang)
	h := newHome(t, map[string]Target{OTLP: {To: srv.URL}})
	m, stop := h.manager()
	w := h.begin("a")
	m.Follow("a")
	for i := range 5000 {
		w.Record(request(i))
	}
	if err := w.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c := w.Counters(); c.Lost > 0 || c.Written < 5000 {
		t.Errorf("%+v", c)
	}
	stop()
	h.end("a")
}

func TestSettingsAreTakenUpWhileItRuns(t *testing.T) {
	c := &collected{t: t, session: map[string]bool{}}
	srv := httptest.NewServer(c)
	defer srv.Close()
	var mu sync.Mutex
	now, broken := map[string]Target{}, error(nil)
	h := newHome(t, nil)
	m, _ := h.manager(func(cfg *Config) {
		cfg.Targets = func() (map[string]Target, error) {
			mu.Lock()
			defer mu.Unlock()
			return now, broken
		}
	})
	w := h.begin("a")
	m.Follow("a")
	w.Record(request(1))
	mu.Lock()
	now = map[string]Target{OTLP: {To: srv.URL}}
	mu.Unlock()
	count := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.spans)
	}
	eventually(t, "the first request", func() bool { return count() == 1 })
	mu.Lock()
	broken = errors.New("line 3: there is no setting")
	mu.Unlock()
	w.Record(request(2))
	eventually(t, "the second, while the settings are wrong", func() bool { return count() == 2 })
	h.end("a")
	eventually(t, "the end", func() bool { return loadState(h.state("a", OTLP)).Done })
}
