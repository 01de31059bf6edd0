package modeltap

import (
	"errors"
	"io"
	"net/http"
	"time"

	"capsem/core/budget"
	"capsem/core/inspect/model"
)

const (
	// outputStep is how many tokens more are reserved for a stream that grows, bytesStep how many bytes.
	outputStep, bytesStep = 1024, 64 << 10
	// smallRead is how much of a model's answer is read at a time where there are budgets.
	smallRead = 4 << 10
)

// answered has the answer read as it passes to the guest. A compressed one reaches the guest plain: then it can be cut where an event ends.
func (c *call) answered(res *http.Response) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status = res.StatusCode
	b := &answerBody{c: c, src: res.Body, raw: res.Body, length: res.ContentLength}
	if c.isModel {
		encoding := res.Header.Get("Content-Encoding")
		d, ok, err := decoder(encoding, res.Body)
		switch {
		case !ok || err != nil || len(res.Header["Content-Encoding"]) > 1:
			c.note = "the answer's encoding is not known"
		case encoding != "":
			b.src, b.plain, b.length = d, d, -1
			res.Header.Del("Content-Encoding")
			res.Header.Del("Content-Length")
			res.ContentLength, res.Uncompressed = -1, true
			fallthrough
		default:
			b.parser = model.NewAnswer(c.endpoint, res.Header.Get("Content-Type"), c.tap.cfg.Keep, b.event)
		}
		if b.parser != nil && b.parser.Streams() && c.hold != nil {
			res.Header.Del("Content-Length")
			res.ContentLength, b.length = -1, -1
		}
		b.small = b.parser != nil && c.hold != nil
	} else if c.hold == nil {
		return // nothing is counted
	}
	res.Body = b
}

// answerBody is an answer on its way to the guest.
type answerBody struct {
	c      *call
	src    io.Reader
	raw    io.Closer
	plain  io.Closer // of a compressed answer
	parser *model.AnswerParser
	length int64

	read int64 // of what the guest gets, and the parser got
	// cutAt is where the answer is cut, if it is; ending follows there.
	cutAt  int64
	small  bool // it may be cut
	ending []byte
	over   error
}

// Read reads on, and tells the parser.
func (b *answerBody) Read(p []byte) (int, error) {
	if len(b.ending) > 0 {
		n := copy(p, b.ending)
		b.ending = b.ending[n:]
		return n, nil
	}
	if b.over != nil {
		return 0, b.over
	}
	if b.small {
		p = p[:min(len(p), smallRead)] // a cut comes no later than this
	}
	n, err := b.src.Read(p)
	b.c.mu.Lock()
	defer b.c.mu.Unlock()
	b.c.bytes += int64(n)
	if b.parser != nil {
		_, _ = b.parser.Write(p[:n])
		if b.c.first.IsZero() && b.parser.Begun() {
			b.c.first = time.Now()
		}
	}
	if b.cutAt > 0 {
		n = b.cutIn(p[:n])
		b.over = io.EOF
		_ = b.raw.Close() // the host need not go on
		b.finish(false)
		return n, nil
	}
	b.read += int64(n)
	switch {
	case err != nil:
		b.over = err
		b.finish(errors.Is(err, io.EOF))
		b.lost(err)
	case b.length >= 0 && b.read >= b.length, b.parser != nil && b.read > 0 && b.parser.Now().Done:
		b.finish(true) // before the guest knows, and sends its next
	case b.parser == nil || b.parser.Now().Events == 0:
		if !b.bytesLeft() {
			b.over = errBudget
			_ = b.raw.Close()
			b.finish(false)
			return 0, errBudget
		}
	}
	return n, err //nolint:wrapcheck // an io.Reader hands errors through
}

// cutIn is how much of a piece comes before the cut. An event that ends in CR ends in CRLF, where the host writes that.
func (b *answerBody) cutIn(p []byte) int {
	n := int(max(0, b.cutAt-b.read))
	if n == 0 || p[n-1] != '\r' {
		return n
	}
	if n == len(p) {
		b.ending = append([]byte{'\n'}, b.ending...)
	} else if p[n] == '\n' {
		n++
	}
	return n
}

// lost notes an answer that was cut short by the host.
func (b *answerBody) lost(err error) {
	if !errors.Is(err, io.EOF) && b.c.cut == "" {
		b.c.cut = short(err.Error())
	}
}

// event follows an event of a stream: may it go on? It is called with the call's mu held, within Read.
func (b *answerBody) event(end int64) {
	c := b.c
	if c.hold == nil || b.cutAt > 0 || c.settled || c.endpoint.Free {
		return
	}
	need := c.needed(b.parser.Now())
	more, step := budget.Amount{}, budget.Amount{}
	for m, has := range c.hold.Amount() {
		if more[m] = max(0, need[m]-has); more[m] > 0 {
			step[m] = more[m]
		}
	}
	if more == (budget.Amount{}) {
		return
	}
	if more[budget.Tokens] > 0 || more[budget.Money] > 0 {
		step[budget.Tokens], step[budget.Money] = more[budget.Tokens]+outputStep, more[budget.Money]+int64(c.outputCost(outputStep))
	}
	if more[budget.Bytes] > 0 {
		step[budget.Bytes] += bytesStep
	}
	err := c.hold.Extend(step)
	if _, over := errors.AsType[*budget.Exceeded](err); over { // a step may be too much where what is needed is not
		err = c.hold.Extend(more)
	}
	if err == nil {
		return
	}
	b.cutAt = end
	c.cut = "cut by capsem: " + short(err.Error())
	b.ending = b.parser.Ending("capsem: this answer was cut. " + err.Error() + ". Trying again will not help; the owner of this machine can change the budget.")
	c.tap.record(cutEvent(c.flow.Host, err))
}

// needed is what a call has used so far, at least.
func (c *call) needed(now model.Answer) budget.Amount {
	u := c.estimate()
	if now.Usage.Known && now.Usage.Total() > now.Usage.Output {
		u = now.Usage
	}
	u.Output = now.OutputTokens()
	need := budget.Amount{budget.Tokens: u.Total(), budget.Bytes: c.moved()}
	if c.price != nil {
		need[budget.Money] = int64(c.price.Cost(&u))
	}
	return need
}

// bytesLeft takes more bytes as an answer grows that is no stream of events.
func (b *answerBody) bytesLeft() bool {
	err := b.c.takeBytes()
	if err != nil {
		b.c.cut = "cut by capsem: " + short(err.Error())
		b.c.tap.record(cutEvent(b.c.flow.Host, err))
	}
	return err == nil
}

// takeBytes takes more bytes where more have passed than were taken. It is called with mu held.
func (c *call) takeBytes() error {
	if c.hold == nil || c.settled {
		return nil
	}
	need := c.moved() - c.hold.Amount()[budget.Bytes]
	if need <= 0 {
		return nil
	}
	step := max(need, bytesStep)
	err := c.hold.Extend(budget.Amount{budget.Bytes: step})
	if _, over := errors.AsType[*budget.Exceeded](err); over && step > need {
		step = need
		err = c.hold.Extend(budget.Amount{budget.Bytes: step})
	}
	return err //nolint:wrapcheck // says what it is
}

// finish takes what is known of the answer, and settles. It is called with the call's mu held.
func (b *answerBody) finish(whole bool) {
	c := b.c
	if c.settled {
		return
	}
	c.whole = whole
	if b.parser != nil {
		c.answer = b.parser.Close()
		if b.cutAt > 0 {
			c.answer.Note = "" // that it ends early is known
		}
		if whole || len(c.answer.Calls) > 0 {
			c.tap.traces.asked(c.endpoint.Provider, c.trace, c.answer.Calls)
		}
	}
	c.settle()
}

// Close is the end of the answer, at the latest.
func (b *answerBody) Close() error {
	err := b.raw.Close()
	if b.plain != nil {
		_ = b.plain.Close()
	}
	b.c.mu.Lock()
	defer b.c.mu.Unlock()
	if b.over == nil {
		b.over = http.ErrBodyReadAfterClose
	}
	b.finish(false)
	return err //nolint:wrapcheck // an io.Closer hands errors through
}
