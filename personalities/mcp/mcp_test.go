package mcp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/proto"
)

// original are the tools of the capsem that this one follows, and their parameters.
var original = map[string]string{
	"capsem_create": "cpuCount env from name ramMb version", "capsem_run": "command env timeout", "capsem_list": "", "capsem_info": "id",
	"capsem_exec": "command id timeout", "capsem_read_file": "id path", "capsem_write_file": "content id path", "capsem_stop": "id",
	"capsem_suspend": "id", "capsem_resume": "name", "capsem_persist": "id name", "capsem_delete": "id", "capsem_purge": "all",
	"capsem_fork": "description id name", "capsem_vm_logs": "grep id tail", "capsem_service_logs": "grep tail", "capsem_inspect_schema": "",
	"capsem_inspect": "id sql", "capsem_version": "", "capsem_mcp_servers": "", "capsem_mcp_tools": "server", "capsem_mcp_call": "arguments name",
}

func TestEveryToolHasSchemasAndAnnotations(t *testing.T) {
	a := newAgent(t, "")
	tools := map[string]*sdk.Tool{}
	for tool, err := range a.Tools(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		tools[tool.Name] = tool
	}
	for name, params := range original {
		tool := tools[name]
		if tool == nil {
			t.Errorf("there is no %s", name)
			continue
		}
		have, _ := tool.InputSchema.(object)["properties"].(object)
		for param := range strings.FieldsSeq(params) {
			if have[param] == nil {
				t.Errorf("%s has no parameter %s", name, param)
			}
		}
	}
	for name, tool := range tools {
		in, out := tool.InputSchema.(object), tool.OutputSchema.(object)
		if in["type"] != "object" || out["type"] != "object" || tool.Annotations == nil || tool.Annotations.DestructiveHint == nil || tool.Description == "" {
			t.Errorf("%s: %+v", name, tool)
		}
		if props, ok := in["properties"].(object); ok {
			for param, p := range props {
				if p.(object)["description"] == nil {
					t.Errorf("parameter %s of %s is not described", param, name)
				}
			}
		}
	}
	for name, want := range map[string][3]bool{ // reads, destroys, is idempotent
		"capsem_list": {true, false, true}, "capsem_delete": {false, true, true}, "capsem_create": {false, false, false},
		"capsem_exec": {false, true, false}, "capsem_write_file": {false, false, true}, "capsem_policy_check": {true, false, true},
	} {
		if a := tools[name].Annotations; [3]bool{a.ReadOnlyHint, *a.DestructiveHint, a.IdempotentHint} != want {
			t.Errorf("%s: %+v", name, a)
		}
	}
	if tools["capsem_approve"] != nil || tools["capsem_approvals"] != nil {
		t.Error("an agent can answer its own questions")
	}
	if words := fmt.Sprint(tools["capsem_exec"].InputSchema); !strings.Contains(words, "default:30") {
		t.Errorf("exec: %s", words)
	}
}

func TestOnlyTheOwnerAnswersQuestions(t *testing.T) {
	a := newAgent(t, "", "--owner")
	if got := a.call("capsem_approvals", nil); got["waiting"] != 0.0 {
		t.Errorf("%v", got)
	}
	if words, code := a.fails("capsem_approve", object{"question": "none", "answer": "deny"}); code != "not_found" {
		t.Errorf("%s: %s", code, words)
	}
}

func TestTheOwnersAgentDecides(t *testing.T) {
	a := newAgent(t, "", "--owner")
	const rule = "[[rule]]\nid = %q\neffect = %q\nreason = \"for the test\"\nhosts = [\"example.com\"]\n"
	check := func(want string) {
		t.Helper()
		if got := a.call("capsem_policy_check", object{"request": "GET https://example.com/"}); got["rule"] != want {
			t.Errorf("decided by %v", got)
		}
	}
	a.call("capsem_policy_add", object{"rules": fmt.Sprintf(rule, "open", "allow")})
	check("open")
	a.call("capsem_policy_add", object{"rules": fmt.Sprintf(rule, "closed", "deny"), "before": "open"})
	check("closed")
	for rules, want := range map[string]string{"": "invalid", "[[rule": "invalid", fmt.Sprintf(rule, "open", "allow"): "conflict"} {
		if words, code := a.fails("capsem_policy_add", object{"rules": rules}); code != want {
			t.Errorf("%q: %s: %s", rules, code, words)
		}
	}
	if words, code := a.fails("capsem_policy_add", object{"rules": fmt.Sprintf(rule, "other", "allow"), "before": "none"}); code != "not_found" {
		t.Errorf("%s: %s", code, words)
	}
	a.call("capsem_secret_set", object{"name": "key", "value": "kQ7mWv3kTt9xLc2Rb8Yd", "kind": "generic", "hosts": []string{"example.com"}})
	if got := fmt.Sprint(a.call("capsem_secrets", nil)); !strings.Contains(got, "example.com") || strings.Contains(got, "kQ7mWv") {
		t.Errorf("secrets: %s", got)
	}
	a.call("capsem_secret_remove", object{"name": "key"})
	a.call("capsem_budget_set", object{"scope": "install", "period": "day", "meter": "requests", "limit": 7})
	if got := fmt.Sprint(a.call("capsem_budgets", nil)); !strings.Contains(got, "limit:7") {
		t.Errorf("budgets: %s", got)
	}
	if words, code := a.fails("capsem_mcp_approve", object{"name": "none__tool"}); code != "not_found" {
		t.Errorf("%s: %s", code, words)
	}
	owners := []string{"capsem_approve", "capsem_approvals", "capsem_budgets", "capsem_budget_set", "capsem_policy_add", "capsem_secrets", "capsem_secret_set", "capsem_secret_remove", "capsem_mcp_approve"}
	for tool, err := range newAgent(t, "").Tools(t.Context(), nil) {
		if err != nil || slices.Contains(owners, tool.Name) {
			t.Errorf("an agent that is not the owner's has %v, %v", tool, err)
		}
	}
}

func TestAnAgentMakesAndUsesAVM(t *testing.T) {
	a := newAgent(t, "")
	if v := a.InitializeResult().ProtocolVersion; v != sdk.SupportedProtocolVersions()[0] {
		t.Errorf("the protocol is %s", v)
	}
	if got := a.call("capsem_create", object{"name": "dev", "ramMb": 512, "cpuCount": 1, "env": object{"A": "b"}, "version": "test"}); got["status"] != "Running" || got["id"] != "dev" {
		t.Errorf("created %v", got)
	}
	if words, code := a.fails("capsem_create", object{"name": "dev"}); code != "conflict" || words == "" {
		t.Errorf("%s: %s", code, words)
	}
	if words, code := a.fails("capsem_create", object{"version": "9"}); code != "unavailable" || !strings.Contains(words, "test") {
		t.Errorf("%s: %s", code, words)
	}
	a.call("capsem_write_file", object{"id": "dev", "path": "a/b.txt", "content": "héllo\n"})
	if got := a.call("capsem_read_file", object{"id": "dev", "path": "a/b.txt"}); got["content"] != "héllo\n" || got["encoding"] != "utf-8" || got["size"] != 7.0 {
		t.Errorf("read %v", got)
	}
	a.call("capsem_write_file", object{"id": "dev", "path": "bin", "content": "AP8=", "encoding": "base64"})
	if got := a.call("capsem_read_file", object{"id": "dev", "path": "bin"}); got["content"] != "AP8=" || got["encoding"] != "base64" {
		t.Errorf("read %v", got)
	}
	if got := a.call("capsem_list_files", object{"id": "dev"}); !strings.Contains(fmt.Sprint(got), "a/b.txt") {
		t.Errorf("listed %v", got)
	}
	if got := a.call("capsem_exec", object{"id": "dev", "command": "echo hi"}); got["stdout"] != "hi\n" || got["exit_code"] != 0.0 {
		t.Errorf("exec %v", got)
	}
	if got := a.call("capsem_exec", object{"id": "dev", "command": "exit 3"}); got["exit_code"] != 3.0 {
		t.Errorf("exec %v", got)
	}
	if got := a.call("capsem_exec", object{"id": "dev", "command": "cat", "stdin": strings.Repeat("x", 100_000), "max_output": 200_000}); got["stdout_bytes"] != 100_000.0 || got["truncated"] != nil {
		t.Errorf("cat %v", got["stdout_bytes"])
	}
	if got := a.call("capsem_run", object{"command": "err oh"}); got["stderr"] != "oh\n" {
		t.Errorf("run %v", got)
	}
	job := a.call("capsem_exec", object{"id": "dev", "command": "echo later", "detach": true})["job"]
	if got := a.call("capsem_job", object{"id": "dev", "job": job, "wait": true}); got["state"] != "done" {
		t.Errorf("job %v", got)
	}
	if got := a.call("capsem_vm_logs", object{"id": "dev", "grep": "console of"}); got["lines"] != 1.0 {
		t.Errorf("logs %v", got)
	}
	if got := a.call("capsem_service_logs", object{"tail": 3}); got["lines"] != 3.0 {
		t.Errorf("service logs %v", got)
	}
	if got := a.call("capsem_policy_check", object{"request": "GET https://example.com/"}); got["verdict"] != "deny" {
		t.Errorf("policy %v", got)
	}
	a.call("capsem_delete", object{"id": "dev"})
	if got := a.call("capsem_list", nil); len(got["sandboxes"].([]any)) != 0 {
		t.Errorf("left %v", got)
	}
}

func TestAnAgentKeepsAndPutsBackStatesOfAVM(t *testing.T) {
	a := newAgent(t, "")
	a.call("capsem_create", object{"name": "dev"})
	a.call("capsem_write_file", object{"id": "dev", "path": "a/b.txt", "content": "one"})
	a.call("capsem_suspend", object{"id": "dev"})
	if got := a.call("capsem_resume", object{"name": "dev"}); got["status"] != "Running" {
		t.Errorf("resumed %v", got)
	}
	if got := a.call("capsem_fork", object{"id": "dev", "name": "base", "description": "d"}); got["name"] != "base" {
		t.Errorf("forked %v", got)
	}
	for _, name := range []string{"capsem_list", "capsem_version", "capsem_inspect_schema", "capsem_mcp_servers", "capsem_mcp_tools", "capsem_sessions", "capsem_stats", "capsem_image_list"} {
		a.call(name, nil)
	}
	for _, name := range []string{"capsem_info", "capsem_checkpoint_list", "capsem_job_list", "capsem_stop"} {
		a.call(name, object{"id": "dev"})
	}
	made := a.call("capsem_snapshot_create", object{"id": "dev", "name": "one"}) // by the service: the VM is stopped
	for _, name := range []string{"capsem_snapshot_list", "capsem_snapshot_changes"} {
		a.call(name, object{"id": "dev"})
	}
	a.call("capsem_snapshot_history", object{"id": "dev", "path": "a/b.txt"})
	a.call("capsem_snapshot_diff", object{"id": "dev", "from": made["checkpoint"]})
	if words, _ := a.fails("capsem_snapshot_revert", object{"id": "dev", "checkpoint": made["checkpoint"], "path": "a/b.txt"}); !strings.Contains(words, "current already") {
		t.Errorf("reverted: %s", words)
	}
	a.call("capsem_snapshot_delete", object{"id": "dev", "checkpoint": made["checkpoint"]})
	a.call("capsem_image_delete", object{"name": "base"})
	a.call("capsem_delete", object{"id": "dev"})
	if got := a.call("capsem_list", nil); len(got["sandboxes"].([]any)) != 0 {
		t.Errorf("left %v", got)
	}
}

func TestFailuresSayWhatIsWrongAndWhatToDo(t *testing.T) {
	a := newAgent(t, "")
	for _, c := range []struct {
		name string
		args object
		code string
		word string
	}{
		{"capsem_info", object{"id": "none"}, "not_found", "none"},
		{"capsem_info", object{}, "invalid", "id"},
		{"capsem_info", object{"id": 5}, "invalid", "id"},
		{"capsem_info", object{"id": "a", "more": true}, "invalid", "more"},
		{"capsem_create", object{"name": "../x"}, "invalid", "name"},
		{"capsem_create", object{"ramMb": 1}, "out_of_range", "256"},
		{"capsem_create", object{"env": object{"LD_PRELOAD": "x"}}, "invalid", "LD_PRELOAD"},
		{"capsem_run", object{"command": ""}, "invalid", "empty"},
		{"capsem_exec", object{"id": "none", "command": "x", "max_output": -1}, "out_of_range", "max_output"},
		{"capsem_read_output", object{"output": "o99"}, "not_found", "o99"},
		{"capsem_service_logs", object{"grep": "("}, "invalid", "regular expression"},
		{"capsem_mcp_call", object{"name": "a__b"}, "unavailable", "none runs"},
		{"capsem_policy_check", object{"request": "nonsense"}, "invalid", "https://"},
		{"capsem_history", object{"id": "none", "limit": 100000}, "out_of_range", "1000"},
	} {
		if words, code := a.fails(c.name, c.args); code != c.code || !strings.Contains(words, c.word) {
			t.Errorf("%s %v: %s: %s", c.name, c.args, code, words)
		}
	}
	if _, err := a.CallTool(t.Context(), &sdk.CallToolParams{Name: "none"}); err == nil {
		t.Error("a tool that is not there was called")
	}
}

func TestALongOutputIsCutAndTheRestCanBeRead(t *testing.T) {
	a := newAgent(t, "")
	a.call("capsem_create", object{"name": "dev"})
	res, err := a.CallTool(t.Context(), &sdk.CallToolParams{Name: "capsem_exec", Arguments: object{"id": "dev", "command": "spam 3000000", "max_output": 1000}})
	if err != nil || res.IsError {
		t.Fatalf("%v %v", err, text(res))
	}
	got := res.StructuredContent.(object)
	if got["output"] != "o1" || got["stdout_bytes"] != 3_000_000.0 || len(got["stdout"].(string)) > 1200 || !strings.Contains(got["stdout"].(string), "capsem_read_output output=o1") {
		t.Errorf("%v", got)
	}
	link, ok := res.Content[len(res.Content)-1].(*sdk.ResourceLink)
	if !ok || link.URI != "capsem://output/o1/stdout" {
		t.Fatalf("content %v", res.Content)
	}
	content, err := a.ReadResource(t.Context(), &sdk.ReadResourceParams{URI: link.URI})
	if err != nil || len(content.Contents[0].Text)+len(content.Contents[0].Blob) != 3_000_000 {
		t.Errorf("the link has %v bytes, %v", len(content.Contents[0].Text), err)
	}
	total := 0
	for offset := 0.0; ; {
		part := a.call("capsem_read_output", object{"output": got["output"], "offset": offset, "limit": 500_000})
		total += int(part["size"].(float64)) / 6 // base64: the worker spams NULs
		if part["next_offset"] == nil {
			break
		}
		offset = part["next_offset"].(float64)
	}
	if total != 3_000_000 {
		t.Errorf("read %d bytes in parts", total)
	}
	for range 9 {
		a.call("capsem_exec", object{"id": "dev", "command": "spam 2000", "max_output": 1000})
	}
	if _, code := a.fails("capsem_read_output", object{"output": "o1"}); code != "not_found" {
		t.Errorf("the oldest output is still there: %s", code)
	}
	a.call("capsem_write_file", object{"id": "dev", "path": "long", "content": strings.Repeat("é", 30_000)})
	part := a.call("capsem_read_file", object{"id": "dev", "path": "long", "limit": 10_001})
	if part["next_offset"] != 10_000.0 || part["encoding"] != "utf-8" || part["size"] != 60_000.0 {
		t.Errorf("a part: %v %v %v", part["next_offset"], part["encoding"], part["size"])
	}
}

func TestProgressIsToldAndACancelledCallEndsItsCommand(t *testing.T) {
	for _, version := range []string{"", "2025-06-18"} {
		a := newAgent(t, version)
		a.call("capsem_create", object{"name": "dev"})
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan error, 1)
		go func() {
			params := &sdk.CallToolParams{Name: "capsem_exec", Arguments: object{"id": "dev", "command": "hang", "timeout": 0}}
			params.SetProgressToken("p1")
			_, err := a.CallTool(ctx, params)
			over <- err
		}()
		until(t, "progress", func() bool {
			a.mu.Lock()
			defer a.mu.Unlock()
			return slices.Contains(a.progress, "the command runs")
		})
		cancel()
		if err := <-over; !errors.Is(err, context.Canceled) {
			t.Errorf("the call ended with %v", err)
		}
		until(t, "the end of the command", func() bool {
			reply, err := a.svc.Jobs(t.Context(), "dev")
			return err == nil && len(reply.Jobs) == 1 && reply.Jobs[0].State == proto.JobDone
		})
	}
}

func TestTheServiceDyingEndsACallAndTheNextOneFindsAnother(t *testing.T) {
	a := newAgent(t, "")
	a.call("capsem_create", object{"name": "dev"})
	before, err := a.svc.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	type failed struct{ words, code string }
	over := make(chan failed, 1)
	go func() {
		words, code := a.fails("capsem_exec", object{"id": "dev", "command": "hang", "timeout": 0})
		over <- failed{words, code}
	}()
	until(t, "the command", func() bool {
		reply, err := a.svc.Jobs(t.Context(), "dev")
		return err == nil && len(reply.Jobs) == 1
	})
	if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := <-over; got.code != "unavailable" || !strings.Contains(got.words, "went away") {
		t.Errorf("%+v", got)
	}
	if got := a.call("capsem_exec", object{"id": "dev", "command": "echo again"}); got["stdout"] != "again\n" {
		t.Errorf("%v", got)
	}
	if after, err := a.svc.Version(t.Context()); err != nil || after.PID == before.PID {
		t.Errorf("%+v, %v", after, err)
	}
}

func TestOlderVersionsAreNegotiatedAndOnlyTheProtocolIsOnStandardOutput(t *testing.T) {
	home, _ := newHome(t)
	for asked, want := range map[string]string{
		"2024-11-05": "2024-11-05", "2025-03-26": "2025-03-26", "2025-06-18": "2025-06-18", "2025-11-25": "2025-11-25", "1999-01-01": "2025-11-25",
	} {
		b := raw(t, home)
		in, out := b.in, b.out
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 8<<20)
		ask := func(id int, method, params string) string {
			t.Helper()
			fmt.Fprintf(in, `{"jsonrpc":"2.0","id":%d,"method":%q,"params":%s}`+"\n", id, method, params)
			for lines.Scan() {
				var msg struct {
					Version string          `json:"jsonrpc"`
					ID      json.RawMessage `json:"id"`
				}
				if err := json.Unmarshal(lines.Bytes(), &msg); err != nil || msg.Version != "2.0" {
					t.Fatalf("not the protocol: %s", lines.Text())
				}
				if string(msg.ID) == strconv.Itoa(id) {
					return lines.Text()
				}
			}
			t.Fatalf("no answer: %v", lines.Err())
			return ""
		}
		got := ask(1, "initialize", `{"protocolVersion":"`+asked+`","capabilities":{},"clientInfo":{"name":"old","version":"1"}}`)
		if !strings.Contains(got, `"protocolVersion":"`+want+`"`) {
			t.Errorf("asked for %s: %s", asked, got)
		}
		fmt.Fprintln(in, `{"jsonrpc":"2.0","method":"notifications/initialized"}`)
		if got := ask(2, "tools/call", `{"name":"capsem_list","arguments":{}}`); !strings.Contains(got, "asset_health") {
			t.Errorf("%s", got)
		}
		if got := ask(3, "no/such", `{}`); !strings.Contains(got, "-32601") {
			t.Errorf("%s", got)
		}
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(out); err != nil || len(rest) > 0 {
			t.Errorf("after the end: %q %v", rest, err)
		}
		if err := b.wait(); err != nil {
			t.Errorf("ended with %v", err)
		}
	}
}

func TestTheEndOfInputEndsAllThatRuns(t *testing.T) {
	home, svc := newHome(t)
	for _, end := range []string{"close", "kill", "signal"} {
		b := raw(t, home)
		in, out := b.in, b.out
		fmt.Fprintln(in, `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`)
		fmt.Fprintln(in, `{"jsonrpc":"2.0","method":"notifications/initialized"}`)
		fmt.Fprintln(in, `this is no JSON, and disturbs nothing`)
		fmt.Fprintln(in, `{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"capsem_run","arguments":{"command":"hang","timeout":0}}}`)
		until(t, "the command of capsem_run", func() bool {
			list, err := svc.List(t.Context())
			if err != nil || len(list.Sandboxes) != 1 {
				return false
			}
			reply, err := svc.Jobs(t.Context(), list.Sandboxes[0].ID)
			return err == nil && len(reply.Jobs) == 1
		})
		go func() { _, _ = io.Copy(io.Discard, out) }()
		switch end {
		case "close":
			_ = in.Close()
			if err := b.wait(); err != nil {
				t.Errorf("ended with %v", err)
			}
		case "signal":
			_ = b.cmd.Process.Signal(syscall.SIGTERM)
			_ = b.wait()
		case "kill":
			_ = b.cmd.Process.Kill()
			_ = b.wait()
			list, err := svc.List(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, vm := range list.Sandboxes { // nobody was left to destroy it, but its command has ended
				until(t, "the end of the command", func() bool {
					reply, err := svc.Jobs(t.Context(), vm.ID)
					return err == nil && len(reply.Jobs) == 1 && reply.Jobs[0].State == proto.JobDone
				})
				if err := svc.Delete(t.Context(), vm.ID); err != nil {
					t.Fatal(err)
				}
			}
			continue
		}
		list, err := svc.List(t.Context())
		if err != nil || len(list.Sandboxes) != 0 {
			t.Errorf("%s: left %v, %v", end, list.Sandboxes, err)
		}
	}
}
