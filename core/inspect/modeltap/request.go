package modeltap

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"capsem/core/budget"
	"capsem/core/detect/pipe"
	"capsem/core/inspect/model"
	"capsem/core/inspect/price"
)

const (
	// peek is how long a request may be that is read before anything of it is sent. Of a longer one everything but the end is sent as it
	// is read: without its end no host answers it.
	peek = 1 << 20
	// firstRead is what is made room for at once when a request says that it is as long or longer.
	firstRead = 256 << 10
	// piece is how much of a long request is held back.
	piece = 32 << 10
	// maxDecoded bounds what a compressed request may become.
	maxDecoded = 256 << 20
	// streamOutput is how many tokens are reserved for a stream that has no bound of its own; more are as it grows.
	streamOutput = 1024
)

// reader reads a request's body, compressed or not.
type reader struct {
	parser  *model.RequestParser
	raw     int64
	pipe    *io.PipeWriter
	done    sync.WaitGroup
	unknown string
}

func newReader(e model.Endpoint, encoding string, keep int) *reader {
	r := &reader{parser: model.NewRequest(e, keep)}
	if encoding == "" {
		return r
	}
	from, to := io.Pipe()
	d, ok, err := decoder(encoding, from)
	if !ok || err != nil {
		r.unknown = "the request's encoding is not known"
		return r
	}
	r.pipe = to
	r.done.Go(func() {
		_, err := io.Copy(r.parser, io.LimitReader(d, maxDecoded))
		_ = d.Close()
		// What follows is not read. The writer must not wait for it.
		_ = from.CloseWithError(errors.Join(io.ErrClosedPipe, err))
	})
	return r
}

// Write reads on. It never fails.
func (r *reader) Write(p []byte) (int, error) {
	r.raw += int64(len(p))
	switch {
	case r.unknown != "":
	case r.pipe != nil:
		_, _ = r.pipe.Write(p) // a decoder that has given up takes no more
	default:
		_, _ = r.parser.Write(p)
	}
	return len(p), nil
}

// close returns what is known.
func (r *reader) close() model.Request {
	if r.pipe != nil {
		_ = r.pipe.Close()
		r.done.Wait()
	}
	q := r.parser.Close()
	if r.unknown != "" {
		q.Note = r.unknown
	}
	q.Bytes = r.raw
	return q
}

// readRequest reads the body and has the call admitted: before anything is sent, or, when it is long, before the end of it is.
func (c *call) readRequest(req *http.Request) error {
	r := newReader(c.endpoint, req.Header.Get("Content-Encoding"), c.tap.cfg.Keep)
	if req.Body == nil || req.Body == http.NoBody {
		return c.admit(r.close())
	}
	held := new(pipe.Memory)
	head, err := readAll(held.Reader(io.LimitReader(req.Body, peek+1)), req.ContentLength)
	_, _ = r.Write(head)
	if err != nil {
		r.close()
		held.Free()
		return fmt.Errorf("read request: %w", err)
	}
	if len(head) <= peek {
		if err := c.admit(r.close()); err != nil {
			held.Free()
			return err
		}
		req.Body = &sentBody{text: head, rest: head, body: req.Body, held: held, c: c}
		return nil
	}
	req.Body = &heldBody{head: head, rest: req.Body, reader: r, c: c, held: held}
	return nil
}

// readAll reads to the end; size is how much that may be, if it is known.
func readAll(r io.Reader, size int64) ([]byte, error) {
	if size <= 0 || size > peek {
		return io.ReadAll(r) //nolint:wrapcheck // by the caller
	}
	out := heads.get(int(min(size, firstRead)) + 1)
	for {
		n, err := r.Read(out[len(out):cap(out)])
		if out = out[:len(out)+n]; errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return out, err //nolint:wrapcheck // by the caller
		}
		if len(out) == cap(out) { // what is said of the size is believed as far as it has come true
			out = slices.Grow(out, max(int(size)+1-len(out), len(out)))
		}
	}
}

// headPool has the memory of requests that were read whole.
type headPool struct{ sync.Pool }

var heads headPool

// get gives room for at least n bytes.
func (p *headPool) get(n int) []byte {
	if b, ok := p.Get().(*[]byte); ok && cap(*b) >= n {
		return (*b)[:0]
	}
	return make([]byte, 0, n)
}

func (p *headPool) put(b []byte) {
	if cap(b) <= 2*firstRead {
		p.Put(&b)
	}
}

// sentBody is a request that was read whole, and notes that all of it was given away.
type sentBody struct {
	body io.Closer
	held *pipe.Memory
	c    *call

	mu         sync.Mutex // Close may come while a Read goes on
	text, rest []byte
	closed     bool
}

// Read notes the end.
func (b *sentBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, http.ErrBodyReadAfterClose
	}
	n := copy(p, b.rest)
	if b.rest = b.rest[n:]; len(b.rest) == 0 {
		b.c.mu.Lock()
		b.c.sent = true
		b.c.mu.Unlock()
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Close closes the guest's body.
func (b *sentBody) Close() error {
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		heads.put(b.text)
		b.text, b.rest = nil, nil
		b.held.Free()
	}
	b.mu.Unlock()
	return b.body.Close() //nolint:wrapcheck // an io.Closer hands errors through
}

// heldBody gives a long request on and keeps the last of it back until the call is admitted.
type heldBody struct {
	head   []byte // what may be given on, but for its last piece
	rest   io.ReadCloser
	reader *reader
	c      *call
	held   *pipe.Memory
	buf    []byte
	err    error
	once   sync.Once
}

// Read gives on. Its error is a *flow.Refusal when the budget does not allow the call.
func (b *heldBody) Read(p []byte) (int, error) {
	for len(b.head) <= piece && b.err == nil {
		if b.buf == nil {
			b.buf = make([]byte, 2*piece)
		}
		n, err := b.rest.Read(b.buf)
		_, _ = b.reader.Write(b.buf[:n])
		b.head = append(b.head, b.buf[:n]...)
		if err == nil {
			continue
		}
		if b.err = err; errors.Is(err, io.EOF) {
			if refused := b.c.admit(b.finish()); refused != nil {
				b.head, b.err = nil, refused
			}
		}
	}
	n := len(b.head)
	if b.err == nil {
		n -= piece
	}
	if n == 0 {
		return 0, b.err
	}
	n = copy(p, b.head[:n])
	b.head = b.head[n:]
	if len(b.head) == 0 && errors.Is(b.err, io.EOF) {
		b.c.mu.Lock()
		b.c.sent = true
		b.c.mu.Unlock()
	}
	return n, nil
}

func (b *heldBody) finish() (q model.Request) {
	b.once.Do(func() { q = b.reader.close() })
	return q
}

// Close closes the guest's body, and ends the reading of it.
func (b *heldBody) Close() error {
	err := b.rest.Close()
	b.finish()
	b.held.Free()
	return err //nolint:wrapcheck // an io.Closer hands errors through
}

// admitOther has a request counted that is for no model.
func (c *call) admitOther() error {
	if c.tap.cfg.Account == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if vendor := model.Vendor(c.flow.Host); vendor != "" && strings.HasPrefix(c.flow.Scheme, "ws") {
		c.endpoint = model.Endpoint{Provider: vendor, Family: vendor, Shape: model.Other, Vendor: true} // what is said on it is not read
		if err := c.mayBePriced(); err != nil {
			return err
		}
	}
	c.request.Bytes = max(c.req.ContentLength, 0)
	// Where there is room for it, a short answer is taken at once.
	if hold, err := c.tap.cfg.Account.Reserve(budget.Amount{budget.Bytes: c.request.Bytes + bytesStep}); err == nil {
		c.hold = hold
	} else if err := c.reserve(budget.Amount{budget.Bytes: c.request.Bytes}); err != nil {
		return err
	}
	if c.req.ContentLength < 0 && c.req.Body != nil && c.req.Body != http.NoBody {
		c.req.Body = &countedBody{ReadCloser: c.req.Body, c: c}
	}
	return nil
}

// countedBody counts a request whose length nobody knows, and ends it where the budget does.
type countedBody struct {
	io.ReadCloser
	c *call
}

// Read counts. Its error is a *flow.Refusal when the budget is used up.
func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.c.mu.Lock()
	defer b.c.mu.Unlock()
	b.c.request.Bytes += int64(n)
	if over := b.c.takeBytes(); over != nil {
		return 0, b.c.tap.refusal(b.c.flow, b.c.req, over.Error())
	}
	return n, err //nolint:wrapcheck // an io.Reader hands errors through
}

// admit reserves what a call may cost.
func (c *call) admit(q model.Request) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.request, c.known = q, true
	if !c.endpoint.Vendor && !q.Plausible() {
		c.isModel = false // a path like that of a model's API, and something else
	}
	if c.isModel {
		c.trace = c.tap.traces.of(c.endpoint.Provider, q.Results)
		if c.tap.cfg.Prices != nil {
			c.price = c.tap.cfg.Prices.Find(c.endpoint.Provider, q.Model)
		}
	}
	if c.tap.cfg.Account == nil {
		return nil
	}
	amount := budget.Amount{budget.Bytes: q.Bytes}
	if c.isModel && !c.endpoint.Free {
		if err := c.mayBePriced(); err != nil {
			return err
		}
		c.output = q.OutputTokens()
		if q.MaxOutput == 0 && q.Stream {
			c.output = streamOutput
		}
		if c.endpoint.Shape == model.OpenAIEmbeddings || c.endpoint.Shape == model.GoogleEmbed || c.endpoint.Shape == model.OllamaEmbed {
			c.output = 0
		}
		u := c.estimate()
		amount[budget.Requests], amount[budget.Tokens] = 1, u.Total()
		if c.price != nil {
			amount[budget.Money] = int64(c.price.Cost(&u))
		}
	}
	return c.reserve(amount)
}

// estimate is what a call may use.
func (c *call) estimate() model.Usage {
	u := model.Usage{Output: c.output}
	switch n := c.request.InputTokens(); {
	case c.request.CachesLong:
		u.CacheWrite1h = n
	case c.request.Caches:
		u.CacheWrite5m = n
	default:
		u.Input = n
	}
	return u
}

// mayBePriced refuses what cannot be counted where there is a limit of it.
func (c *call) mayBePriced() error {
	other := c.endpoint.Shape == model.Other
	if c.price != nil && !other {
		return nil
	}
	limited, err := c.tap.cfg.Account.Limited()
	switch {
	case err != nil:
		return c.broken(err)
	case other && (limited[budget.Money] || limited[budget.Tokens]):
		return c.tap.refusal(c.flow, c.req, "there is a budget of money or tokens, and what requests of this kind use is not known")
	case limited[budget.Money]:
		reason := fmt.Sprintf("there is a budget of money, and what model %q of %s costs is not known; the owner can say it in prices.toml", short(c.request.Model), c.endpoint.Provider)
		return c.tap.refusal(c.flow, c.req, reason)
	}
	return nil
}

func (c *call) reserve(amount budget.Amount) error {
	hold, err := c.tap.cfg.Account.Reserve(amount)
	if e, ok := errors.AsType[*budget.Exceeded](err); ok {
		return c.tap.refusal(c.flow, c.req, e.Error())
	}
	if err != nil {
		return c.broken(err)
	}
	c.hold = hold
	return nil
}

// broken refuses while the budget cannot be read: nobody knows what is left.
func (c *call) broken(err error) error {
	c.tap.cfg.Log.Error("the budget cannot be read", "error", err)
	return c.tap.refusal(c.flow, c.req, "the budget cannot be read at present")
}

// outputCost is what so many more tokens of an answer cost.
func (c *call) outputCost(tokens int64) price.Nano {
	if c.price == nil {
		return 0
	}
	u := c.estimate()
	before := c.price.Cost(&u)
	u.Output += tokens
	return c.price.Cost(&u) - before
}
