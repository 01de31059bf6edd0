package export

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"capsem/core/buildinfo"
	"capsem/core/ledger"
)

const (
	// spansPerLine is how many spans one line has.
	spansPerLine = 256
	// metricsEvery is how often metrics are written of what is followed.
	metricsEvery = 10 * time.Second
)

// The kinds of spans, and the status of one that failed.
const (
	spanInternal = 1
	spanClient   = 3
	statusError  = 2
	// cumulative says that a sum counts from the beginning.
	cumulative = 2
)

// otlp writes lines of OTLP in JSON, as the file exporter of OpenTelemetry does: traces, then a line of metrics. Calls of models, requests, calls of MCP tools
// and commands are spans; the calls of a model that belong to one task are one trace, all else of the session another.
type otlp struct {
	out     *output
	session string
	spans   []object
	sums    map[string]*sum
	// first and last bound the time of the metrics.
	first, last time.Time
	// fresh says that events have come since the metrics were written, at wrote.
	fresh bool
	wrote time.Time
}

// sum is a metric: what it is, and its points by their attributes.
type sum struct {
	unit, text string
	real       bool
	points     map[string]*point
}

type point struct {
	attributes []object
	count      int64
	amount     float64
}

// maxPoints bounds the points of one metric; the rest are counted together.
const maxPoints = 1000

func newOTLP(out *output, session string) *otlp {
	return &otlp{out: out, session: session, sums: map[string]*sum{
		"capsem.requests":          {unit: "{request}", text: "Requests by host and decision", points: map[string]*point{}},
		"capsem.network.io":        {unit: "By", text: "Bytes of bodies by direction", points: map[string]*point{}},
		"capsem.dns.lookups":       {unit: "{lookup}", text: "Name lookups by decision", points: map[string]*point{}},
		"capsem.commands":          {unit: "{command}", text: "Commands", points: map[string]*point{}},
		"gen_ai.client.calls":      {unit: "{call}", text: "Calls of models", points: map[string]*point{}},
		"gen_ai.client.tokens":     {unit: "{token}", text: "Tokens by model and type", points: map[string]*point{}},
		"gen_ai.client.cost":       {unit: "USD", text: "Estimated cost by model, where it is known", real: true, points: map[string]*point{}},
		"capsem.mcp.calls":         {unit: "{call}", text: "Calls of MCP tools by server and decision", points: map[string]*point{}},
		"capsem.detector.findings": {unit: "{finding}", text: "Findings of detectors", points: map[string]*point{}},
	}}
}

func (o *otlp) kinds() []string { return []string{"net", "dns", "model", "mcp", "exec", "detection"} }
func (o *otlp) begin() error    { return nil }

// pause writes the spans, and now and then the metrics: those count from the beginning each time.
func (o *otlp) pause() error {
	if err := o.flush(); err != nil || !o.fresh || time.Since(o.wrote) < metricsEvery {
		return err
	}
	return o.metrics()
}

// attribute is a name with a value of any kind.
func attribute(name string, v any) object {
	var value object
	switch v := v.(type) {
	case int64:
		value = object{"intValue": strconv.FormatInt(v, 10)}
	case float64:
		value = object{"doubleValue": v}
	case bool:
		value = object{"boolValue": v}
	case []string:
		all := make([]object, len(v))
		for i, s := range v {
			all[i] = object{"stringValue": s}
		}
		value = object{"arrayValue": object{"values": all}}
	default:
		value = object{"stringValue": fmt.Sprint(v)}
	}
	return object{"key": name, "value": value}
}

// attributes are pairs of names and values; what is empty is left out.
func attributes(pairs ...any) []object {
	out := []object{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if name, ok := pairs[i].(string); ok && pairs[i+1] != "" && pairs[i+1] != nil {
			out = append(out, attribute(name, pairs[i+1]))
		}
	}
	return out
}

// id makes an id of n bytes.
func (o *otlp) id(n int, of ...any) string {
	h := sha256.Sum256([]byte(o.session + "\x00" + fmt.Sprint(of...)))
	return hex.EncodeToString(h[:n])
}

func (o *otlp) resource() object {
	return object{"attributes": attributes("service.name", "capsem", "service.version", buildinfo.Version, "service.instance.id", o.session)}
}

func (o *otlp) event(e *ledger.Entry) error {
	r := row{e}
	o.fresh = true
	if at := r.at(); o.first.IsZero() {
		o.first, o.last = at, at
	} else if end := at.Add(r.took()); end.After(o.last) {
		o.last = end
	}
	switch e.Kind {
	case "net":
		o.net(r)
	case "dns":
		o.add("capsem.dns.lookups", 1, "capsem.decision", r.text("decision"))
	case "model":
		o.model(r)
	case "mcp":
		o.mcp(r)
	case "exec":
		o.exec(r)
	case "detection":
		o.add("capsem.detector.findings", 1, "capsem.detector", r.text("detector"), "capsem.outcome", r.text("outcome"))
	}
	if len(o.spans) >= spansPerLine {
		return o.flush()
	}
	return nil
}

// add counts.
func (o *otlp) add(metric string, amount float64, pairs ...any) {
	s := o.sums[metric]
	key := fmt.Sprint(pairs...)
	p := s.points[key]
	if p == nil {
		if len(s.points) >= maxPoints {
			key, pairs = "", []any{"otel.metric.overflow", true}
		}
		if p = s.points[key]; p == nil {
			p = &point{attributes: attributes(pairs...)}
			s.points[key] = p
		}
	}
	p.count += int64(amount)
	p.amount += amount
}

// span adds one. why is what failed, "" if nothing did.
func (o *otlp) span(r row, trace, name string, kind int, why string, attrs []object) object {
	v := object{
		"traceId": o.id(16, trace), "spanId": o.id(8, r.Kind, r.ID), "name": name, "kind": kind,
		"startTimeUnixNano": nano(r.at()), "endTimeUnixNano": nano(r.at().Add(r.took())), "attributes": attrs,
	}
	if why != "" {
		v["status"] = object{"code": statusError, "message": why}
	}
	o.spans = append(o.spans, v)
	return v
}

func nano(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) }

// failure says what failed of a row.
func failure(r row) string {
	for _, name := range []string{"error", "error_message"} {
		if s := r.text(name); s != "" {
			return s
		}
	}
	if d := r.text("decision"); d == "denied" {
		return "denied by " + r.text("matched_rule")
	}
	if code := r.int("status_code"); code >= 400 {
		return "status " + strconv.FormatInt(code, 10)
	}
	return ""
}

func (o *otlp) net(r row) {
	o.add("capsem.requests", 1, "server.address", r.text("domain"), "capsem.decision", r.text("decision"))
	o.add("capsem.network.io", float64(r.int("bytes_sent")), "network.io.direction", "transmit")
	o.add("capsem.network.io", float64(r.int("bytes_received")), "network.io.direction", "receive")
	name, full := r.text("method"), ""
	if name == "" {
		name = r.text("conn_type")
	} else {
		full = urlOf(r)
	}
	o.span(r, "session", name+" "+r.text("domain"), spanClient, failure(r), attributes(
		"http.request.method", r.text("method"), "url.full", full, "server.address", r.text("domain"), "server.port", r.int("port"),
		"http.response.status_code", r.Fields["status_code"], "http.request.body.size", r.int("bytes_sent"), "http.response.body.size", r.int("bytes_received"),
		"network.peer.address", r.text("remote_addr"), "capsem.decision", r.text("decision"), "capsem.rule", r.text("matched_rule"),
		"capsem.process", r.text("process_name"),
	))
}

func (o *otlp) model(r row) {
	provider, model := r.text("provider"), r.text("model")
	o.add("gen_ai.client.calls", 1, "gen_ai.provider.name", provider, "gen_ai.request.model", model)
	for kind, name := range map[string]string{"input": "input_tokens", "output": "output_tokens"} {
		o.add("gen_ai.client.tokens", float64(r.int(name)), "gen_ai.provider.name", provider, "gen_ai.request.model", model, "gen_ai.token.type", kind)
	}
	cost, known := r.Fields["estimated_cost_usd"].(float64)
	if known {
		o.add("gen_ai.client.cost", cost, "gen_ai.provider.name", provider, "gen_ai.request.model", model)
	}
	trace := "session"
	if t := r.text("trace_id"); t != "" {
		trace = "task " + t
	}
	attrs := attributes(
		"gen_ai.operation.name", "chat", "gen_ai.provider.name", provider, "gen_ai.request.model", model, "gen_ai.response.id", r.text("message_id"),
		"gen_ai.usage.input_tokens", r.int("input_tokens"), "gen_ai.usage.output_tokens", r.int("output_tokens"), "capsem.trace_id", r.text("trace_id"),
		"capsem.cost_usd", r.Fields["estimated_cost_usd"], "http.response.status_code", r.Fields["status_code"], "capsem.process", r.text("process_name"),
	)
	if why := r.text("stop_reason"); why != "" {
		attrs = append(attrs, attribute("gen_ai.response.finish_reasons", []string{why}))
	}
	parent := o.span(r, trace, "chat "+model, spanClient, failure(r), attrs)
	tools, _ := r.Fields["tool_calls"].([]map[string]any)
	for i, tool := range tools {
		// A tool runs in the guest after the answer; only that it was asked for is known.
		o.spans = append(o.spans, object{
			"traceId": parent["traceId"], "parentSpanId": parent["spanId"], "spanId": o.id(8, r.Kind, r.ID, "tool", i), "kind": spanInternal,
			"name": "execute_tool " + fmt.Sprint(tool["tool_name"]), "startTimeUnixNano": parent["endTimeUnixNano"], "endTimeUnixNano": parent["endTimeUnixNano"],
			"attributes": attributes("gen_ai.operation.name", "execute_tool", "gen_ai.tool.name", tool["tool_name"], "gen_ai.tool.call.id", tool["call_id"]),
		})
	}
}

func (o *otlp) mcp(r row) {
	o.add("capsem.mcp.calls", 1, "capsem.mcp.server", r.text("server_name"), "capsem.decision", r.text("decision"))
	o.span(r, "session", r.text("method")+" "+r.text("tool_name"), spanClient, failure(r), attributes(
		"capsem.mcp.server", r.text("server_name"), "gen_ai.tool.name", r.text("tool_name"), "capsem.decision", r.text("decision"), "capsem.rule", r.text("matched_rule"),
	))
}

func (o *otlp) exec(r row) {
	o.add("capsem.commands", 1)
	trace, why := "session", ""
	if t := r.text("trace_id"); t != "" {
		trace = "task " + t
	}
	if code := r.int("exit_code"); code != 0 {
		why = "exit " + strconv.FormatInt(code, 10)
	}
	o.span(r, trace, "exec", spanInternal, why, attributes("process.command_line", r.text("command"), "process.exit.code", r.int("exit_code"), "capsem.source", r.text("source")))
}

// flush writes a line of spans.
func (o *otlp) flush() error {
	if len(o.spans) == 0 {
		return nil
	}
	err := o.out.line(object{"resourceSpans": []object{{
		"resource": o.resource(), "scopeSpans": []object{{"scope": object{"name": "capsem", "version": buildinfo.Version}, "spans": o.spans}},
	}}})
	o.spans = o.spans[:0]
	return err
}

func (o *otlp) end() error {
	if err := o.flush(); err != nil || !o.fresh {
		return err
	}
	return o.metrics()
}

// metrics writes a line of all metrics.
func (o *otlp) metrics() error {
	o.fresh, o.wrote = false, time.Now()
	var metrics []object
	for _, name := range slices.Sorted(maps.Keys(o.sums)) {
		s := o.sums[name]
		var points []object
		for _, key := range slices.Sorted(maps.Keys(s.points)) {
			p := s.points[key]
			v := object{"attributes": p.attributes, "startTimeUnixNano": nano(o.first), "timeUnixNano": nano(o.last)}
			if s.real {
				v["asDouble"] = p.amount
			} else {
				v["asInt"] = strconv.FormatInt(p.count, 10)
			}
			points = append(points, v)
		}
		if len(points) > 0 {
			metrics = append(metrics, object{
				"name": name, "unit": s.unit, "description": s.text, "sum": object{"aggregationTemporality": cumulative, "isMonotonic": true, "dataPoints": points},
			})
		}
	}
	return o.out.line(object{"resourceMetrics": []object{{
		"resource": o.resource(), "scopeMetrics": []object{{"scope": object{"name": "capsem", "version": buildinfo.Version}, "metrics": metrics}},
	}}})
}
