package lines

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
)

type sink struct{ bytes.Buffer }

func (*sink) Close() error { return nil }

func TestAServersBadLineEndsTheConnection(t *testing.T) {
	for name, line := range map[string]string{"long": strings.Repeat("x", 2000), "garbage": "what?", "deep": strings.Repeat("[", 20)} {
		tr := &Transport{In: io.NopCloser(strings.NewReader(line + "\n")), Out: &sink{}, MaxLine: 1000, MaxDepth: 10}
		c, err := tr.Connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(t.Context()); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAClientsRequestsAreCounted(t *testing.T) {
	var in strings.Builder
	for i := range MaxInFlight + 1 {
		id, err := jsonrpc.MakeID(float64(i))
		if err != nil {
			t.Fatal(err)
		}
		body, err := jsonrpc.EncodeMessage(&jsonrpc.Request{ID: id, Method: "ping"})
		if err != nil {
			t.Fatal(err)
		}
		in.Write(append(body, '\n'))
	}
	out := &sink{}
	tr := &Transport{In: io.NopCloser(strings.NewReader(in.String())), Out: out, MaxLine: MaxLine, MaxDepth: MaxDepth, Serve: true}
	c, err := tr.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for {
		if _, err := c.Read(t.Context()); err != nil {
			break
		}
		count++
	}
	if count != MaxInFlight || !strings.Contains(out.String(), `"code":-32013`) {
		t.Errorf("%d requests, and %s", count, out.String())
	}
}

func FuzzDecode(f *testing.F) {
	for _, line := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}`, `{"jsonrpc":"2.0","id":"a","result":{}}`, `{"jsonrpc":"2.0","method":"n"}`,
		`{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}`, `[]`, `{"id":null}`, `"`, `{"a":"\"[[["}`,
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			return
		}
		msg, code, err := Decode(line, 16)
		if (err == nil) != (code == 0) {
			t.Fatalf("%v with code %d", err, code)
		}
		if err != nil {
			return
		}
		if _, err := jsonrpc.EncodeMessage(msg); err != nil {
			t.Fatalf("a message that cannot be written: %v", err)
		}
	})
}
