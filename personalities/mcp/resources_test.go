package mcp

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/api"
	"capsem/core/fault"
)

func TestResourcesAreListedReadAndWatched(t *testing.T) {
	for _, version := range []string{"", "2025-06-18"} {
		a := newAgent(t, version)
		a.call("capsem_create", object{"name": "dev"})
		a.call("capsem_write_file", object{"id": "dev", "path": "notes/a b.txt", "content": "one"})
		var uris []string
		for r, err := range a.Resources(t.Context(), nil) {
			if err != nil {
				t.Fatal(err)
			}
			uris = append(uris, r.URI)
		}
		for _, want := range []string{"capsem://vms", "capsem://service/log", "capsem://vm/dev/log/serial", "capsem://vm/dev/transcript"} {
			if !slices.Contains(uris, want) {
				t.Errorf("%s is not among %v", want, uris)
			}
		}
		const file = "capsem://vm/dev/file/notes/a%20b.txt"
		for uri, want := range map[string]string{
			file: "one", "capsem://vm/dev/file/notes": "a b.txt", "capsem://vms": `"dev"`, "capsem://vm/dev/info": "Running",
			"capsem://vm/dev/log/serial": "console of", "capsem://service/log": "created", "capsem://vm/dev/terminal": "$ ",
		} {
			got, err := a.ReadResource(t.Context(), &sdk.ReadResourceParams{URI: uri})
			if err != nil || !strings.Contains(got.Contents[0].Text, want) {
				t.Errorf("%s: %v %v", uri, got, err)
			}
		}
		for _, uri := range []string{
			"capsem://vm/none/info", "capsem://vm/dev/file/none", "capsem://vm/dev/nothing", "file:///etc/passwd", "capsem://output/o9/stdout",
			"capsem://vm/dev/file/../../../../etc/passwd", "capsem://vm/dev/file/%2e%2e/%2e%2e/secret", "capsem://vm/%2e%2e/info",
		} {
			if got, err := a.ReadResource(t.Context(), &sdk.ReadResourceParams{URI: uri}); err == nil {
				t.Errorf("%s has %v", uri, got.Contents[0])
			}
		}
		if err := a.Subscribe(t.Context(), &sdk.SubscribeParams{URI: file}); err != nil {
			t.Fatal(err)
		}
		// With the latest protocol the subscription is there some time after the call: write until it is told.
		var told string
		for i := 0; told == ""; i++ {
			a.call("capsem_write_file", object{"id": "dev", "path": "notes/a b.txt", "content": strings.Repeat("x", i+2)})
			select {
			case told = <-a.updated:
			default:
				a.call("capsem_list", nil)
			}
		}
		if told != file {
			t.Errorf("told of %s", told)
		}
		if err := a.Unsubscribe(t.Context(), &sdk.UnsubscribeParams{URI: file}); err != nil {
			t.Error(err)
		}
	}
}

func TestPromptsAndCompletions(t *testing.T) {
	a := newAgent(t, "")
	a.call("capsem_create", object{"name": "dev-1"})
	a.call("capsem_write_file", object{"id": "dev-1", "path": "src/main.go", "content": "x"})
	count := 0
	for _, err := range a.Prompts(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		count++
	}
	got, err := a.GetPrompt(t.Context(), &sdk.GetPromptParams{Name: "try_variants", Arguments: map[string]string{"vm": "dev-1", "goal": "less {vm}"}})
	if err != nil || count < 4 || !strings.Contains(got.Messages[0].Content.(*sdk.TextContent).Text, "goal: less {vm}") {
		t.Errorf("%d prompts, %v, %v", count, got, err)
	}
	if _, err := a.GetPrompt(t.Context(), &sdk.GetPromptParams{Name: "review_vm"}); err == nil {
		t.Error("a prompt without its argument")
	}
	for _, c := range []struct {
		ref   sdk.CompleteReference
		arg   sdk.CompleteParamsArgument
		id    string
		value string
	}{
		{sdk.CompleteReference{Type: "ref/prompt", Name: "review_vm"}, sdk.CompleteParamsArgument{Name: "vm", Value: "de"}, "", "dev-1"},
		{sdk.CompleteReference{Type: "ref/resource", URI: "capsem://vm/{id}/log/{log}"}, sdk.CompleteParamsArgument{Name: "log", Value: "s"}, "dev-1", "serial"},
		{sdk.CompleteReference{Type: "ref/resource", URI: "capsem://vm/{id}/file/{+path}"}, sdk.CompleteParamsArgument{Name: "path", Value: "sr"}, "dev-1", "src/"},
		{sdk.CompleteReference{Type: "ref/prompt", Name: "review_vm"}, sdk.CompleteParamsArgument{Name: "vm", Value: "none"}, "", ""},
	} {
		got, err := a.Complete(t.Context(), &sdk.CompleteParams{Ref: &c.ref, Argument: c.arg, Context: &sdk.CompleteContext{Arguments: map[string]string{"id": c.id}}})
		if err != nil || (c.value == "") != (len(got.Completion.Values) == 0) || (c.value != "" && got.Completion.Values[0] != c.value) {
			t.Errorf("%s %s: %v, %v", c.arg.Name, c.arg.Value, got, err)
		}
	}
}

func TestCallsAreToldToTheClientsLog(t *testing.T) {
	a := newAgent(t, "2025-06-18")
	if err := a.SetLoggingLevel(t.Context(), &sdk.SetLoggingLevelParams{Level: "info"}); err != nil { //nolint:staticcheck // deprecated, not gone
		t.Fatal(err)
	}
	a.call("capsem_list", nil)
	a.fails("capsem_info", object{"id": "none"})
	until(t, "two notes", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		all := strings.Join(a.logs, "\n")
		return strings.Contains(all, "info") && strings.Contains(all, "capsem_list") && strings.Contains(all, "warning") && strings.Contains(all, "capsem_info")
	})
}

func TestAnAgentReachesTheOwnersServers(t *testing.T) {
	a := newAgent(t, "")
	created := a.call("capsem_create", object{})
	if err := a.svc.AddMCPServer(t.Context(), &api.MCPAddRequest{Name: "web", URL: "https://web.test/mcp"}); err != nil {
		t.Fatal(err)
	}
	until(t, "the servers", func() bool {
		got := fmt.Sprint(a.call("capsem_mcp_servers", object{}))
		return strings.Contains(got, "name:local") && strings.Contains(got, "state:connected") && strings.Contains(got, "name:web")
	})
	if got := fmt.Sprint(a.call("capsem_mcp_tools", object{"server": "local"})); !strings.Contains(got, "local__echo") {
		t.Errorf("tools: %s", got)
	}
	if got := fmt.Sprint(a.call("capsem_mcp_call", object{"name": "local__echo", "arguments": object{"x": "seven"}, "vm": created["id"]})); !strings.Contains(got, "seven") {
		t.Errorf("the answer is %s", got)
	}
	if _, code := a.fails("capsem_mcp_call", object{"name": "local__echo", "vm": "other"}); code != string(fault.NotFound) {
		t.Errorf("in another VM: %s", code)
	}
}
