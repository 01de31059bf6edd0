package git

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"capsem/core/mitm/flow"
	"capsem/core/policy"
)

// maxBatch bounds a request of git LFS.
const maxBatch = 1 << 20

// batchRequest is what matters of it.
type batchRequest struct {
	Operation string `json:"operation"`
	Ref       struct {
		Name string `json:"name"`
	} `json:"ref"`
}

// batch judges a request of git LFS for places to load files from or to: an upload is a part of a push, a download of a fetch.
func (p *pass) batch(req *http.Request) error {
	if err := p.decode(req); err != nil {
		return err
	}
	raw, err := io.ReadAll(io.LimitReader(req.Body, maxBatch+1))
	if err != nil {
		return err //nolint:wrapcheck // a refusal is the answer
	}
	var asked batchRequest
	if len(raw) > maxBatch || json.Unmarshal(raw, &asked) != nil {
		return p.lfsRefusal(policy.Verdict{RuleID: policy.RuleMalformed, Reason: "the LFS request is too long, or no JSON"})
	}
	putBack(req, raw)
	// A key that is there twice, or in disguise, some servers read in another way: then it counts as an upload.
	sure := asked.Operation == "download" && bytes.Count(bytes.ToLower(raw), []byte(`"operation"`)) == 1 && !bytes.Contains(raw, []byte(`\u`))
	if sure {
		return p.settle(p.judge([]string{policy.GitClone, policy.GitFetch}, "", "", 0), "LFS download from")
	}
	ref := asked.Ref.Name
	if !strings.HasPrefix(ref, "refs/") {
		ref = "" // the push itself is judged by its ref
	}
	return p.settle(p.judge(push, ref, "", 0), "LFS upload to")
}

// lfs judges the other requests of git LFS, such as those about locks.
func (p *pass) lfs(req *http.Request) error {
	if req.Method == http.MethodGet || req.Method == http.MethodHead {
		return p.settle(p.judge([]string{policy.GitClone, policy.GitFetch}, "", "", 0), "LFS request to")
	}
	return p.settle(p.judge(push, "", "", 0), "LFS request to")
}

func (p *pass) settle(v policy.Verdict, what string) error {
	if v.Effect == policy.Allow || v.Effect == policy.Ask && p.asked(v, what) {
		return nil
	}
	return p.lfsRefusal(v)
}

func (p *pass) lfsRefusal(v policy.Verdict) *flow.Refusal {
	r := p.plain(v)
	r.Header.Set("Content-Type", "application/vnd.git-lfs+json")
	text, err := json.Marshal(map[string]string{"message": because(v)})
	if err != nil { // only strings are in it
		text = []byte(`{"message":"refused by capsem"}`)
	}
	r.Body = text
	return r
}
