//go:build vm

package vmtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"capsem/core/api"
	"capsem/core/assets/assetstest"
)

// agentPatience bounds what the command lines and SDKs of the providers take: without KVM their start alone takes long.
const agentPatience = 10 * time.Minute

// The owner's keys, shaped as the providers' are.
var (
	anthropicKey = "sk-" + "ant-api03-" + strings.Repeat("Real9Key_aB", 8) + "AA"
	openAIKey    = "sk-" + "proj-" + strings.Repeat("RealOpen7Xy", 12)
	googleKey    = "AI" + "za" + "Sy" + strings.Repeat("Real5Go", 4) + "xyzab"
)

// cached is a directory that .ci/deps puts into the cache of the tests.
func cached(t *testing.T, name string) string {
	t.Helper()
	root := os.Getenv("CAPSEM_TEST_CACHE")
	if root == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		root = filepath.Join(cache, "capsem-test")
	}
	dir := filepath.Join(root, name)
	if _, err := os.Stat(filepath.Join(dir, "wanted")); err != nil {
		t.Fatal("it is not there; .ci/deps test installs it: ", err)
	}
	return dir
}

// long calls capsem for what takes long in a guest.
func (in *install) long(args ...string) result {
	in.t.Helper()
	ctx, cancel := context.WithTimeout(in.t.Context(), agentPatience)
	defer cancel()
	cmd := in.command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run() // its code says it
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// The command lines and SDKs of the providers do their work in a VM of the image that users have, with keys that are not in it.
func TestAgentsWorkWithKeysThatTheyDoNotHave(t *testing.T) {
	node, python := cached(t, "node-sdks"), cached(t, "python-sdks")
	p := newProviders(t, map[string]string{anthropicHost: anthropicKey, openAIHost: openAIKey, chatGPTHost: openAIKey, googleHost: googleKey})
	home := assetstest.HomeOf(t, assetstest.Dev)
	for path, text := range map[string]string{
		home.UserConfig(): fmt.Sprintf("[vm]\nwarm_start = false\n[network]\nproxy = %q\ndns = [%q]\nca_files = [%q]\n", p.proxy, p.dns, p.ca),
		home.UserPolicy(): "[[rule]]\nid = \"other\"\neffect = \"allow\"\nreason = \"for the test\"\nhosts = [\"" + otherHost + "\"]\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	in := newInstall(t, home)
	for name, key := range map[string]string{"claude": anthropicKey, "openai": openAIKey, "gemini": googleKey} {
		if r := in.capsem(key, "secret", "set", name); r.code != 0 {
			t.Fatalf("secret set %s: %+v", name, r)
		}
	}
	in.ok("create", "-n", "vm", "--ram", "2G", "--cpu", "2", "--mount", node+":/mnt/node:ro", "--mount", python+":/mnt/python:ro")
	in.ok("cp", "../../core/inspect/modeltap/testdata/sdks.mjs", "vm:/root/sdks.mjs")
	in.ok("cp", "testdata/sdks.py", "vm:/root/sdks.py")
	// They load while the command lines do, on the VM's other processor.
	ofNode := in.begin("node sdks.mjs /mnt/node anthropic,responses,google '' budget")
	ofPython := in.begin("PYTHONPATH=/mnt/python/usr/lib/python3/dist-packages python3 sdks.py")
	for _, part := range []struct {
		name string
		test func(*testing.T, *install, *providers)
	}{
		{"command lines", commandLines},
		{"SDKs", func(t *testing.T, in *install, p *providers) { sdks(t, in, p, ofNode, ofPython) }},
		{"elsewhere", elsewhere},
		{"the keys are nowhere", keysNowhere},
	} {
		began := time.Now()
		t.Run(part.name, func(t *testing.T) { part.test(t, &install{t, in.home, in.bin}, p) })
		t.Logf("%s took %s", part.name, time.Since(began).Round(time.Second))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	t.Logf("hosts that the proxy does not know: %v", p.strange)
}

// commandLines has each answer a prompt, and Claude's run a command first. They run at the same time.
func commandLines(t *testing.T, in *install, p *providers) {
	r := in.long("exec", "vm", `
		claude -p "`+makeIt+`, then say what six times seven is" --allowedTools Bash < /dev/null > claude.out 2> claude.err & claude=$!
		codex exec --skip-git-repo-check "what is six times seven?" < /dev/null > codex.out 2> codex.err & codex=$!
		gemini -p "what is six times seven?" < /dev/null > gemini.out 2> gemini.err & gemini=$!
		wait $claude; echo claude $?; wait $codex; echo codex $?; wait $gemini; echo gemini $?
		tail -n 40 *.err /tmp/gemini-* >&2
		cat claude.out codex.out gemini.out`)
	for _, want := range []string{"claude 0\n", "codex 0\n", "gemini 0\n"} {
		if !strings.Contains(r.stdout, want) || strings.Count(r.stdout, "forty-two") != 3 {
			t.Fatalf("no %q, or not three answers, in %s\n%s\nof %+v", want, r.stdout, r.stderr, p.take(googleHost))
		}
	}
	if strings.Contains(r.stderr, "Reconnecting") || strings.Contains(r.stderr, "credential/elsewhere") {
		t.Errorf("codex is not content: %s", r.stderr)
	}
	var vm api.SandboxInfo
	decode(t, in.ok("info", "--json", "vm"), &vm)
	if made, err := os.ReadFile(filepath.Join(vm.Dir, "workspace", "made")); err != nil || string(made) != "hi\n" {
		t.Errorf("what claude was to make is %q: %v", made, err)
	}
	for host, path := range map[string]string{anthropicHost: "/v1/messages", openAIHost: "/v1/responses", googleHost: ":streamGenerateContent"} {
		streams := 0
		for _, c := range p.take(host) {
			if c.wrong {
				t.Errorf("%s %s%s had another key than the owner's", c.method, host, c.path)
			}
			if c.key && c.stream && strings.HasSuffix(c.path, path) {
				streams++
			}
		}
		if want := map[string]int{anthropicHost: 2, openAIHost: 1, googleHost: 1}[host]; streams != want {
			t.Errorf("%s was asked for %d streams, want %d", host, streams, want)
		}
	}
	calls := strings.Join(strings.Fields(in.ok("inspect", "vm", `SELECT provider, status_code, input_tokens, output_tokens, stop_reason,
		count(*), count(DISTINCT trace_id) FROM model_calls WHERE stop_reason IS NOT NULL GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 5`)), " ")
	for _, want := range []string{"anthropic 200 11 7 end_turn 1 1", "anthropic 200 11 7 tool_use 1 1", "google 200 13 9 STOP", "openai 200 12 8 completed 1 1"} {
		if !strings.Contains(calls, want) {
			t.Errorf("no %q in %s", want, calls)
		}
	}
	traces := in.ok("inspect", "vm", "SELECT count(DISTINCT trace_id) AS n FROM model_calls WHERE provider = 'anthropic'")
	if strings.Join(strings.Fields(traces), " ") != "n 1" {
		t.Errorf("the two turns of claude are not one task: %s", traces)
	}
	if text := in.ok("models", "vm"); strings.Count(text, "anthropic claude-") != 2 || !strings.Contains(text, "openai gpt-") || !strings.Contains(text, "google gemini-") {
		t.Errorf("capsem models prints\n%s", text)
	}
}

// sdks has each SDK call its provider four times, with a budget of three: the fourth is refused, and not tried again.
func sdks(t *testing.T, in *install, p *providers, node, python *program) {
	in.ok("budget", "set", "--vm", "vm", "--per", "session", "requests=3")
	for _, sdk := range []struct {
		of         *program
		name, host string
	}{
		{node, "anthropic", anthropicHost},
		{node, "responses", openAIHost},
		{node, "google", googleHost},
		{python, "anthropic", anthropicHost},
		{python, "responses", openAIHost},
	} {
		in.ok("budget", "reset", "--vm", "vm")
		refused := in.refusals("capsem:budget")
		var out struct {
			OK, Status int
			Message    string
		}
		decode(t, sdk.of.ask(t, sdk.name), &out)
		if out.OK != 3 || out.Status != http.StatusForbidden || !strings.Contains(out.Message, "budget") {
			t.Errorf("%s of %s: %+v", sdk.name, sdk.of.command, out)
		}
		streams, calls := 0, p.take(sdk.host)
		for _, c := range calls {
			if c.stream {
				streams++
			}
			if !c.key || c.wrong {
				t.Errorf("%s of %s: %s had not the owner's key", sdk.name, sdk.of.command, c.path)
			}
		}
		if len(calls) != 3 || streams != 1 {
			t.Errorf("%s of %s: the provider was asked %d times, for %d streams", sdk.name, sdk.of.command, len(calls), streams)
		}
		in.until("the record of the refusal", func() bool { return in.refusals("capsem:budget") > refused })
		if n := in.refusals("capsem:budget") - refused; n != 1 {
			t.Errorf("%s of %s was refused %d times", sdk.name, sdk.of.command, n)
		}
	}
	in.ok("budget", "set", "--vm", "vm", "--per", "session", "requests=none")
	node.end(t)
	python.end(t)
}

// program is a command in the VM that answers lines.
type program struct {
	command string
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Scanner
	err     bytes.Buffer
}

// begin starts one.
func (in *install) begin(command string) *program {
	in.t.Helper()
	ctx, cancel := context.WithTimeout(in.t.Context(), agentPatience)
	in.t.Cleanup(cancel)
	p := &program{command: command, cmd: in.command(ctx, "exec", "vm", command)}
	p.cmd.Stderr = &p.err
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		in.t.Fatal(err)
	}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		in.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		in.t.Fatal(err)
	}
	p.out = bufio.NewScanner(out)
	return p
}

// ask sends a line, and gives the one that answers it.
func (p *program) ask(t *testing.T, line string) string {
	t.Helper()
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		t.Fatal(err)
	}
	if !p.out.Scan() {
		_ = p.cmd.Wait() // what it said is below
		t.Fatalf("%s does not answer: %v %s", p.command, p.out.Err(), p.err.String())
	}
	return p.out.Text()
}

// end waits for its end.
func (p *program) end(t *testing.T) {
	t.Helper()
	if err := errors.Join(p.in.Close(), p.cmd.Wait()); err != nil {
		t.Errorf("%s: %v %s", p.command, err, p.err.String())
	}
}

// refusals counts what a rule has refused.
func (in *install) refusals(rule string) (n int) {
	in.t.Helper()
	text := in.ok("inspect", "vm", "SELECT count(*) AS n FROM net_events WHERE decision = 'denied' AND matched_rule = '"+rule+"'")
	if _, err := fmt.Sscan(strings.TrimPrefix(text, "n"), &n); err != nil {
		in.t.Fatalf("%q: %v", text, err)
	}
	return n
}

// elsewhere sends placeholders to hosts that they are not bound to, though the policy allows these.
func elsewhere(t *testing.T, in *install, p *providers) {
	for _, c := range []struct{ host, header string }{
		{otherHost, "x-api-key: $ANTHROPIC_API_KEY"}, {anthropicHost, "Authorization: Bearer $OPENAI_API_KEY"}, {googleHost, "x-other: $ANTHROPIC_API_KEY"},
	} {
		before := in.refusals("credential/elsewhere")
		r := in.capsem("", "exec", "vm", `curl -sS -w ' %{http_code}' -H "`+c.header+`" -d '{}' https://`+c.host+"/v1/messages")
		if r.code != 0 || !strings.HasSuffix(r.stdout, " 403") || !strings.Contains(r.stdout, "credential") {
			t.Errorf("%s to %s: %+v", c.header, c.host, r)
		}
		if calls := p.take(c.host); len(calls) > 0 {
			t.Errorf("%s was asked: %+v", c.host, calls)
		}
		in.until("the record of the refusal", func() bool { return in.refusals("credential/elsewhere") == before+1 })
	}
}

// keysNowhere suspends the VM and looks for the keys in all that there is of it: its disk, its memory, its workspace, the record, the logs.
func keysNowhere(t *testing.T, in *install, _ *providers) {
	placeholder := strings.TrimSpace(in.ok("exec", "vm", "printenv OPENAI_API_KEY"))
	if text := in.ok("exec", "vm", "cat /proc/[0-9]*/environ 2>/dev/null; env"); strings.Contains(text, openAIKey) || !strings.Contains(text, placeholder) {
		t.Error("the environment has the key, or no placeholder")
	}
	in.ok("suspend", "vm")
	found := 0
	err := filepath.WalkDir(in.home.Dir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasPrefix(path, in.home.Assets()) {
			return err
		}
		seen, err := contains(path, placeholder, anthropicKey, openAIKey, googleKey)
		if seen[placeholder] {
			found++
			delete(seen, placeholder)
		}
		if len(seen) > 0 {
			t.Errorf("a key is in %s", path)
		}
		return err
	})
	if err != nil || found < 2 {
		t.Errorf("the placeholder was found in %d files: %v", found, err)
	}
}

// contains says which texts are in a file, which may be long.
func contains(path string, texts ...string) (map[string]bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const overlap = 1024
	seen := map[string]bool{}
	buf := make([]byte, 4<<20)
	for kept := 0; ; {
		n, err := io.ReadFull(f, buf[kept:])
		for _, text := range texts {
			if bytes.Contains(buf[:kept+n], []byte(text)) {
				seen[text] = true
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return seen, nil
		}
		if err != nil {
			return nil, err
		}
		kept = copy(buf, buf[len(buf)-overlap:])
	}
}
