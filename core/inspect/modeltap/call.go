package modeltap

import (
	"encoding/json"
	"math"
	"net/http"
	"strings"
	"sync"
	"time"

	"capsem/core/budget"
	"capsem/core/inspect/model"
	"capsem/core/inspect/price"
	"capsem/core/ledger"
	"capsem/core/mitm/flow"
)

// call is one request on its way.
type call struct {
	tap      *Tap
	flow     *flow.Flow
	req      *http.Request
	began    time.Time
	endpoint model.Endpoint
	isModel  bool

	mu      sync.Mutex
	request model.Request
	known   bool // the request has been read to its end
	sent    bool // and given away
	price   *price.Price
	trace   string
	hold    *budget.Hold
	// output is how many tokens of an answer were reserved before it came.
	output int64

	status  int
	answer  model.Answer
	whole   bool // the answer came to its end
	bytes   int64
	first   time.Time
	cut     string
	note    string
	settled bool
	cost    price.Nano
	priced  bool
}

// usage is what was spent, by what the provider says or, where it says nothing, by the lengths.
func (c *call) usage() (u model.Usage, estimated bool) {
	u = c.answer.Usage
	switch {
	case c.endpoint.Free || c.status >= http.StatusBadRequest:
		return model.Usage{}, false
	case !c.known || !c.sent && c.status == 0:
		return model.Usage{}, false // the host has not seen all of it
	case c.status == 0 || !u.Known && c.endpoint.Shape == model.AnthropicBatch:
		return model.Usage{Input: c.request.InputTokens(), Output: c.output}, true // nobody knows: all that it could be
	case !u.Known:
		return model.Usage{Input: c.request.InputTokens(), Output: c.answer.OutputTokens()}, true
	case !c.whole && c.answer.OutputTokens() > u.Output:
		u.Output = c.answer.OutputTokens() // the last count had not come
		return u, true
	}
	return c.believed(u)
}

// A token has a few bytes. A host whose count comes to more than impossible ones each, beyond what is little, does not count all.
const impossible, little = 32, 4 << 10

// believed is what a host has counted, or, where it cannot be so little, what the lengths say: no budget is kept by a host that does not count.
func (c *call) believed(u model.Usage) (counted model.Usage, estimated bool) {
	if bytes := c.answer.OutputBytes; bytes > little && bytes/impossible > u.Output {
		u.Output, estimated = c.answer.OutputTokens(), true
	}
	if bytes := c.request.PromptBytes; bytes > little && bytes/impossible > u.Total()-u.Output {
		u.Input, u.CacheRead, u.CacheWrite5m, u.CacheWrite1h, estimated = c.request.InputTokens(), 0, 0, 0, true
	}
	return u, estimated
}

// settle counts what was spent, once. It is called with mu held.
func (c *call) settle() {
	if c.settled {
		return
	}
	c.settled = true
	u, _ := c.usage()
	if c.tap.cfg.Prices != nil && c.answer.Model != "" {
		if p := c.tap.cfg.Prices.Find(c.endpoint.Provider, c.answer.Model); p != nil {
			c.price = p // whoever answered is who asks for money
		}
	}
	if c.price != nil {
		c.cost, c.priced = c.price.Cost(&u), true
	} else if u == (model.Usage{}) {
		c.priced = c.endpoint.Free || c.status >= http.StatusBadRequest
	}
	if _, lied := c.believed(c.answer.Usage); lied && c.whole && c.answer.Usage.Known && c.status < http.StatusBadRequest {
		c.note = "the host counts fewer tokens than there can be"
	}
	if c.hold == nil {
		return
	}
	spent := budget.Amount{budget.Money: int64(c.cost), budget.Tokens: u.Total(), budget.Bytes: c.moved()}
	if c.isModel && !c.endpoint.Free && (c.sent || c.status != 0) {
		spent[budget.Requests] = 1
	}
	warnings, err := c.hold.Settle(spent)
	if err != nil {
		c.tap.cfg.Log.Error("cannot write the budget", "error", err)
	}
	c.tap.warn(warnings)
}

// moved is how many bytes of bodies passed.
func (c *call) moved() int64 { return c.request.Bytes + c.bytes }

// end is the end of the request, whatever way.
func (c *call) end(e flow.End) {
	c.mu.Lock()
	defer c.mu.Unlock()
	refused := c.isModel && c.hold == nil && c.tap.cfg.Account != nil
	if !c.isModel { // what passed beside the bodies: a WebSocket
		c.request.Bytes, c.bytes = max(c.request.Bytes, e.Sent), max(c.bytes, e.Received)
	}
	c.settle()
	if !c.isModel || refused || !c.known {
		return
	}
	c.tap.record(c.row(e))
}

// row is the record of a call.
func (c *call) row(e flow.End) ledger.ModelCall {
	row := ledger.ModelCall{
		Time: c.began, Provider: c.endpoint.Provider, Model: c.answer.Model, Method: c.req.Method, Path: c.req.URL.Path, Stream: c.request.Stream,
		SystemPrompt: c.request.System, Messages: c.request.Messages, Tools: c.request.Tools, RequestBytes: c.request.Bytes,
		MessageID: c.answer.ID, Status: c.status, Text: c.answer.Text, Thinking: c.answer.Thinking, StopReason: c.answer.Stop,
		Duration: e.At.Sub(c.began), ResponseBytes: c.bytes, TraceID: c.trace, CostUSD: math.NaN(),
	}
	if row.Model == "" {
		row.Model = c.request.Model
	}
	if row.Status == 0 {
		row.Status = e.Status
	}
	u, estimated := c.usage()
	row.InputTokens, row.OutputTokens = u.SaidInput, u.Output
	if estimated && u.SaidInput == 0 {
		row.InputTokens = u.Input
	}
	if c.priced {
		row.CostUSD = float64(c.cost) / float64(price.Dollar)
	}
	row.Usage = c.details(&u, estimated, e)
	if p := c.flow.Process; p != nil {
		row.Process = ledger.Process{Name: p.Name, PID: int64(p.PID), CommandLine: p.CommandLine, Parents: strings.Join(p.Parents, " < ")}
	}
	for i, t := range c.answer.Calls {
		origin := "native"
		if strings.Contains(t.Name, "__") {
			origin = "mcp"
		}
		row.Calls = append(row.Calls, ledger.ToolCall{Index: i, CallID: t.ID, Tool: t.Name, Arguments: t.Arguments, Origin: origin})
	}
	for _, r := range c.request.Results {
		row.Results = append(row.Results, ledger.ToolResponse{CallID: r.ID, Content: r.Content, Failed: r.Failed})
	}
	return row
}

// details is what the columns have no place for. Input is what was neither read from nor written to a cache.
func (c *call) details(u *model.Usage, estimated bool, e flow.End) string {
	d := struct {
		Input        int64  `json:"input"`
		CacheRead    int64  `json:"cache_read,omitempty"`
		CacheWrite5m int64  `json:"cache_write_5m,omitempty"`
		CacheWrite1h int64  `json:"cache_write_1h,omitempty"`
		Thinking     int64  `json:"thinking,omitempty"`
		MaxOutput    int64  `json:"max_output,omitempty"`
		FirstTokenMS int64  `json:"first_token_ms,omitempty"`
		CostNanoUSD  *int64 `json:"cost_nano_usd"`
		Estimated    bool   `json:"estimated,omitempty"`
		Error        string `json:"error,omitempty"`
		Note         string `json:"note,omitempty"`
		Cut          string `json:"cut,omitempty"`
	}{
		Input: u.Input, CacheRead: u.CacheRead, CacheWrite5m: u.CacheWrite5m, CacheWrite1h: u.CacheWrite1h, Thinking: u.Reasoning,
		MaxOutput: c.request.MaxOutput, Estimated: estimated, Error: c.answer.Error, Cut: c.cut,
	}
	if c.priced {
		n := int64(c.cost)
		d.CostNanoUSD = &n
	}
	if !c.first.IsZero() {
		d.FirstTokenMS = max(1, c.first.Sub(c.began).Milliseconds())
	}
	notes := []string{}
	for _, n := range []string{c.note, c.request.Note, c.answer.Note} {
		if n != "" {
			notes = append(notes, n)
		}
	}
	d.Note = strings.Join(notes, "; ")
	if d.Cut == "" && e.Err != nil {
		d.Cut = short(e.Err.Error())
	}
	text, err := json.Marshal(d)
	if err != nil { // only numbers and texts are in it
		return "{}"
	}
	return string(text)
}
