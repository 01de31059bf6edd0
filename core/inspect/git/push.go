package git

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"capsem/core/detect/pipe"
	"capsem/core/inspect/gitwire"
	"capsem/core/mitm/flow"
	"capsem/core/policy"
)

// push judges a push by its commands, and lets its pack follow as far as the policy allows.
func (p *pass) push(req *http.Request) error {
	if err := p.decode(req); err != nil {
		return err
	}
	length := req.ContentLength
	said, err := gitwire.ReadPush(req.Body)
	if err != nil {
		return p.refusePush(req.Body, said, nil, malformed(err))
	}
	j := &pushed{p: p, said: said, limit: -1, agreed: map[string]bool{}}
	if length >= 0 {
		j.size = max(0, length-int64(len(said.Raw)))
	}
	if c, v := j.judge(); v.Effect == policy.Deny {
		return p.refusePush(req.Body, said, c, v)
	}
	if c, v := j.ask(); v.Effect != policy.Allow {
		return p.refusePush(req.Body, said, c, v)
	}
	src := req.Body
	putBack(req, said.Raw)
	if len(said.Commands) == 0 || !said.HasPack() {
		return nil // git begins a large push with one that says nothing
	}
	stream := &packStream{pushed: j, src: src, req: req}
	if err := stream.begin(); err != nil {
		return err
	}
	pack := pipe.NewBody(src, func() error { stream.end(); return src.Close() }, stream, nil)
	req.Body = &body{io.MultiReader(strings.NewReader(string(said.Raw)), pack), pack}
	return nil
}

// refusePush answers a push that is refused for one of its commands: none of them is done. c is nil where it is for no one in particular.
func (p *pass) refusePush(src io.Reader, said *gitwire.Push, c *gitwire.Command, v policy.Verdict) error {
	p.drain(src)
	why := because(v)
	body := gitwire.Refused(said, why, func(of *gitwire.Command) string {
		if c == nil || of.Ref == c.Ref {
			return why
		}
		return "capsem: not pushed, since " + c.Ref + " is refused"
	})
	return p.answer(v, receive+"-result", body)
}

// pushed is what is known of a push.
type pushed struct {
	p    *pass
	said *gitwire.Push
	// size is how large the pack is, as far as is known; limit how far the verdicts hold, -1 for any size.
	size, limit int64
	// asks are the commands that the owner is asked about.
	asks []question
	// agreed are the rules under which the owner has agreed.
	agreed map[string]bool
	// unsure are updates that are to be known not to be forced, filed commands whose paths matter.
	unsure, filed []*gitwire.Command
}

// question is a command, and the verdict that asks.
type question struct {
	c *gitwire.Command
	v policy.Verdict
}

var push = []string{policy.GitPush}

// judge judges all commands. It gives the first that is refused, with its verdict.
func (j *pushed) judge() (*gitwire.Command, policy.Verdict) {
	j.limit, j.asks, j.unsure, j.filed = -1, nil, nil, nil
	for i := range j.said.Commands {
		c := &j.said.Commands[i]
		kind := policy.GitUpdate
		switch {
		case c.Creates():
			kind = policy.GitCreate
		case c.Deletes():
			kind = policy.GitDelete
		}
		r := j.request(c.Ref, kind)
		if kind == policy.GitDelete {
			r.Files = policy.GitFilesUnknown // it has none, and everything of the branch goes
		}
		v := j.p.p.Git(r)
		j.within(v)
		if r.Files == policy.GitFilesLater && j.p.p.GitNeedsFiles(r) {
			j.filed = append(j.filed, c)
		}
		if kind == policy.GitUpdate {
			forced := j.p.judge(push, c.Ref, policy.GitForce, j.size)
			j.within(forced)
			if forced.Effect > v.Effect {
				j.unsure = append(j.unsure, c)
			}
		}
		switch v.Effect {
		case policy.Deny:
			return c, v
		case policy.Ask:
			j.asks = append(j.asks, question{c, v})
		}
	}
	return nil, policy.Verdict{Effect: policy.Allow}
}

// request is a command as the policy sees it.
func (j *pushed) request(ref, kind string) *policy.GitRequest {
	return &policy.GitRequest{Host: j.p.f.Host, Repo: j.p.e.repo, Ops: push, Ref: ref, Kind: kind, Pack: j.size}
}

// within notes how far a verdict holds.
func (j *pushed) within(v policy.Verdict) {
	if v.BodyLimit >= 0 && (j.limit < 0 || v.BodyLimit < j.limit) {
		j.limit = v.BodyLimit
	}
}

// ask asks the owner, once for each rule. It gives what was not agreed to.
func (j *pushed) ask() (*gitwire.Command, policy.Verdict) {
	for _, q := range j.asks {
		if j.agreed[q.v.RuleID] {
			continue
		}
		var refs []string
		for _, other := range j.asks {
			if other.v.RuleID == q.v.RuleID && len(refs) < 8 {
				refs = append(refs, other.c.Ref)
			}
		}
		if !j.p.asked(q.v, "push of "+strings.Join(refs, ", ")+" to") {
			return q.c, q.v
		}
		j.agreed[q.v.RuleID] = true
	}
	return nil, policy.Verdict{Effect: policy.Allow}
}

// packStream lets a pack pass.
type packStream struct {
	*pushed
	src  io.Reader
	req  *http.Request
	seen int64
	// history reads along, through feed, where it has to be known whether updates are forced; nil otherwise. done has its result.
	feed *io.PipeWriter
	done chan struct{}
	got  *gitwire.History
	err  error
	// objects are those of the pack, where paths matter.
	objects *gitwire.Objects
	turn    turn
	// held is the end of what was read so far.
	held, out []byte
}

// begin starts to read along, if that is needed, when it is its turn. end has to follow.
func (s *packStream) begin() error {
	if len(s.unsure)+len(s.filed) == 0 {
		return nil
	}
	if err := s.turn.wait(s.p.ctx, s.p.m.reading); err != nil {
		return err
	}
	s.p.f.AtEnd(func(flow.End) { s.end() }) // should nobody close it
	r, w := io.Pipe()
	s.feed, s.done = w, make(chan struct{})
	read := func() (*gitwire.History, error) { return gitwire.ReadHistory(r, s.said.IDBytes()) }
	if len(s.filed) > 0 {
		s.objects = gitwire.NewObjects(s.said.IDBytes())
		read = func() (*gitwire.History, error) { return s.objects.ReadObjects(r) }
	}
	go func() {
		defer close(s.done)
		s.got, s.err = read()
		_ = r.CloseWithError(s.err) // what follows is of no interest, unless it was read to its end
	}()
	return nil
}

// end waits for what reads along.
func (s *packStream) end() {
	if s.feed != nil {
		_ = s.feed.CloseWithError(io.ErrUnexpectedEOF)
		<-s.done
		s.turn.over()
	}
}

// Push takes in the next piece.
func (s *packStream) Push(b []byte, last bool) ([]byte, error) {
	if s.seen += int64(len(b)); s.limit >= 0 && s.seen > s.limit {
		if err := s.grown(); err != nil {
			return nil, err
		}
	}
	if s.feed == nil {
		return b, nil
	}
	if !s.turn.enter() {
		return nil, net.ErrClosed
	}
	defer s.turn.leave()
	_, failed := s.feed.Write(b)
	if last && failed == nil {
		failed = s.feed.Close()
		<-s.done
	}
	if failed != nil || last {
		if err := s.known(failed); err != nil {
			return nil, err
		}
	}
	s.held = append(s.held, b...)
	n := len(s.held)
	if !last {
		n = max(0, n-s.said.IDBytes())
	}
	s.out = append(s.out[:0], s.held[:n]...)
	s.held = s.held[:copy(s.held, s.held[n:])]
	return s.out, nil
}

// grown judges again, by the size that the pack has by now.
func (s *packStream) grown() error {
	unsure, filed := s.unsure, s.filed
	s.size = s.seen
	c, v := s.judge()
	if v.Effect != policy.Deny {
		c, v = s.ask()
	}
	if v.Effect != policy.Allow {
		return s.refuse(c, v)
	}
	if len(s.unsure) > len(unsure) {
		return s.refuse(s.unsure[0], policy.Verdict{Effect: policy.Deny, RuleID: policy.RuleGit, Reason: "too large a pack to tell whether it is forced"})
	}
	if len(s.filed) > len(filed) {
		return s.refuse(s.filed[0], policy.Verdict{Effect: policy.Deny, RuleID: policy.RuleGit, Reason: "too large a pack to tell which paths it changes"})
	}
	return nil
}

// known judges the updates by the history of the pack. failed is why it was not read to its end.
func (s *packStream) known(failed error) error {
	if failed != nil {
		<-s.done
	}
	for _, c := range s.unsure {
		v := s.p.judge(push, c.Ref, policy.GitForce, s.size)
		switch {
		case s.err != nil:
			v.Effect, v.Reason = policy.Deny, fmt.Sprintf("it cannot be told whether this push is forced: %v", s.err)
			return s.refuse(c, v)
		case c.Old == c.New || s.got.Leads(c.New, c.Old):
			continue
		case v.Effect == policy.Ask && s.p.asked(v, "forced push of "+c.Ref+" to"):
			continue
		}
		note := " (the pushed commits do not lead back to what is there, so this may be a forced push)"
		v.Reason += note
		return s.refuse(c, v)
	}
	return s.paths()
}

// paths judges the commands by the paths that they change.
func (s *packStream) paths() error {
	if len(s.filed) == 0 {
		return nil
	}
	f := &files{p: s.p, req: s.req, objects: s.objects, asked: map[string]bool{}, idBytes: s.said.IDBytes()}
	var sent []string
	if s.err == nil {
		sent = s.objects.Commits() // before the server is asked for more
	}
	for _, c := range s.filed {
		kind := policy.GitUpdate
		switch {
		case c.Creates():
			kind = policy.GitCreate
		case s.err != nil || c.Old != c.New && !s.got.Leads(c.New, c.Old):
			kind = policy.GitForce
		}
		r := s.request(c.Ref, kind)
		var err error
		if err = s.err; err == nil {
			r.Paths, err = f.changed(s.p.ctx, c, sent)
		}
		if r.Files = policy.GitFilesKnown; err != nil {
			r.Files, r.Paths = policy.GitFilesUnknown, nil
		}
		if err := s.settle(c, s.p.p.Git(r), r, err); err != nil {
			return err
		}
	}
	return nil
}

// settle deals with a verdict on paths. unknown is why they could not be told.
func (s *packStream) settle(c *gitwire.Command, v policy.Verdict, r *policy.GitRequest, unknown error) error {
	switch {
	case v.Effect == policy.Allow, v.Effect == policy.Ask && (s.agreed[v.RuleID] || s.p.asked(v, "push of "+c.Ref+" to")):
		return nil
	case unknown != nil:
		v.Reason = fmt.Sprintf("%s (it cannot be told which paths this push changes: %v)", v.Reason, unknown)
	default:
		for _, p := range r.Paths {
			one := *r
			if one.Paths = []string{p}; s.p.p.Git(&one).Effect != policy.Allow {
				v.Reason += fmt.Sprintf(" (this push changes %.200q)", p)
				break
			}
		}
	}
	return s.refuse(c, v)
}

// refuse ends the pack with the answer to its push.
func (s *packStream) refuse(c *gitwire.Command, v policy.Verdict) error {
	return s.p.refusePush(s.src, s.said, c, v)
}
