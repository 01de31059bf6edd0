package modeltap

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"capsem/core/mitm/flow"
)

func TestModelsAreNotCalledOverAWebSocketWhereThereIsAnotherWay(t *testing.T) {
	tap := New(Config{Log: slog.New(slog.DiscardHandler)})
	for name, c := range map[string]struct {
		host, path, scheme string
		refused            bool
	}{
		"responses":               {openAIHost, "/v1/responses", "wss", true},
		"of an account":           {"chatgpt.com", "/backend-api/codex/responses", "wss", true},
		"of a region":             {"us.chatgpt.com", "/backend-api/codex/responses", "wss", true},
		"realtime has only this":  {openAIHost, "/v1/realtime", "wss", false},
		"over HTTP":               {openAIHost, "/v1/responses", "https", false},
		"a host of somebody else": {"example.test", "/v1/responses", "wss", false},
	} {
		req := httptest.NewRequest(http.MethodGet, "https://"+c.host+c.path, nil)
		f := &flow.Flow{Host: c.host, Port: 443, Scheme: c.scheme}
		err := tap.ModifyRequest(req.WithContext(flow.With(context.Background(), f)))
		refusal, refused := errors.AsType[*flow.Refusal](err)
		if refused != c.refused || refused && (refusal.Status != http.StatusUpgradeRequired || refusal.Rule != RuleSocket) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
