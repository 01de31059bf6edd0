package match

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// plainly looks for patterns at every place, one after the other.
func plainly(patterns [][]byte, text []byte, from int) (at, pattern int) {
	for at := from; at < len(text); at++ {
		best := -1
		for i, p := range patterns {
			if bytes.HasPrefix(text[at:], p) && (best < 0 || len(p) > len(patterns[best])) {
				best = i
			}
		}
		if best >= 0 {
			return at, best
		}
	}
	return 0, -1
}

func TestASetFindsWhatLookingEverywhereFinds(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	letters := func(n, of int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = "ab%\\\nxyz"[r.IntN(of)]
		}
		return b
	}
	for range 2000 {
		var patterns [][]byte
		of := 2 + r.IntN(7)
		shortest := MinPattern + r.IntN(40)
		for range r.IntN(8) {
			patterns = append(patterns, letters(shortest+r.IntN(20), of))
		}
		s, err := NewSet(patterns)
		if err != nil {
			t.Fatal(err)
		}
		text := letters(r.IntN(200), of)
		for range r.IntN(4) {
			if len(patterns) > 0 {
				text = append(append(text, patterns[r.IntN(len(patterns))]...), letters(r.IntN(12), of)...)
			}
		}
		for from := 0; from <= len(text); {
			at, p := s.Find(text, from)
			wantAt, want := plainly(patterns, text, from)
			if at != wantAt || p != want {
				t.Fatalf("%q in %q from %d: %d at %d, not %d at %d", patterns, text, from, p, at, want, wantAt)
			}
			if p < 0 {
				break
			}
			from = at + 1
		}
	}
}

func TestAViewIsWhatReadingByteByByteGives(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	parts := []string{"%41", `\u0041`, `\n`, `\\`, "%", `\`, "\r\n", "\n\n", "text", "%4", `\u00`, `\x`, "é"}
	for range 3000 {
		var raw []byte
		for range r.IntN(30) {
			raw = append(raw, parts[r.IntN(len(parts))]...)
		}
		for _, packed := range []bool{false, true} {
			var v view
			v.build(raw, packed, []part{{0, len(raw)}}, 0)
			var want []byte
			i := 0
			for i < len(raw) {
				c, n := raw[i], 1
				if c == '%' || c == '\\' {
					if c, n = unescape(raw[i:]); n == 0 {
						break
					}
					if packed && (c == '\r' || c == '\n') {
						i += n
						continue
					}
				} else if packed && (c == '\r' || c == '\n') {
					i++
					if i > 1 && raw[i-2] == '\n' {
						want = append(want, '\n')
					}
					continue
				}
				want = append(want, c)
				i += n
			}
			if !bytes.Equal(v.text, want) || v.open != i {
				t.Fatalf("%q, packed %v: %q to %d, not %q to %d", raw, packed, v.text, v.open, want, i)
			}
			for at := range v.text {
				from, to := v.from(at), v.to(at)
				if to <= from || to > len(raw) || v.place(from) != at && raw[from] != '\n' && raw[from] != '\r' {
					t.Fatalf("%q: byte %d of the view is at %d to %d, and that at %d", raw, at, from, to, v.place(from))
				}
			}
		}
	}
}

func TestLookingOnlyAtPartsFindsAsMuch(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	parts := []string{"%6b", `\u0059`, `\n`, `\\`, `\/`, "%", `\`, "\r\n", "\n\n", " ", "\"", "%4", "%4 ", `\u00`, "word", "é", "+", "/"}
	some := func(s []byte) string { from := r.IntN(len(s)); return string(s[from : from+r.IntN(len(s)-from)+1]) }
	codes := []string{}
	for _, s := range secrets {
		codes = append(codes, string(s), percent(string(s)), unicodes(string(s)))
		for skip := range 3 {
			codes = append(codes, string(inner(s, skip, false)), wrapped(string(inner(s, skip, true))))
		}
	}
	all, err := NewSecrets(secrets)
	if err != nil {
		t.Fatal(err)
	}
	for i := range all.within {
		all.within[i] = true // all of a text is one part
	}
	few, err := NewSecrets(secrets)
	if err != nil {
		t.Fatal(err)
	}
	for range 3000 {
		var text []byte
		for range r.IntN(20) {
			switch r.IntN(4) {
			case 0:
				text = append(text, some([]byte(codes[r.IntN(len(codes))]))...)
			case 1:
				text = append(text, codes[r.IntN(len(codes))]...)
			default:
				text = append(text, parts[r.IntN(len(parts))]...)
			}
		}
		n := 1 + r.IntN(60)
		var out [2]string
		for i, s := range []*Secrets{few, all} {
			stream := NewStream(s, func(h *Hit) ([]byte, error) { return []byte("<" + h.Form.String() + ">"), nil })
			for at := 0; at <= len(text); at += n {
				got, err := stream.Push(text[at:min(at+n, len(text))], at+n > len(text))
				if err != nil {
					t.Fatal(err)
				}
				out[i] += string(got)
			}
			stream.Free()
		}
		if out[0] != out[1] {
			t.Fatalf("%q in pieces of %d: %q, not %q", text, n, out[0], out[1])
		}
	}
}
