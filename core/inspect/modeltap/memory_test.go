package modeltap

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"capsem/core/mitm/flow"
)

func TestRequestsThatAreReadAheadHoldBoundedMemory(t *testing.T) {
	tap := New(Config{Log: slog.New(slog.DiscardHandler)})
	var held []io.Closer
	busy := 0
	begin := func() {
		text := `{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("x", peek-1000) + `"}]}`
		req, err := http.NewRequestWithContext(flow.With(t.Context(), &flow.Flow{Host: "api.openai.com", Scheme: "https"}), http.MethodPost,
			"https://api.openai.com/v1/chat/completions", strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		err = tap.ModifyRequest(req)
		var no *flow.Refusal
		switch {
		case err == nil:
			held = append(held, req.Body)
		case errors.As(err, &no) && no.Status == http.StatusServiceUnavailable:
			busy++
		default:
			t.Fatal(err)
		}
	}
	for range 300 {
		begin()
	}
	if busy == 0 || len(held) == 0 {
		t.Errorf("%d are held, %d were refused", len(held), busy)
	}
	for _, c := range held {
		_ = c.Close()
	}
	held, busy = nil, 0
	begin()
	if busy > 0 {
		t.Error("no memory was given back")
	}
	_ = held[0].Close()
}
