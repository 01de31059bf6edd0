package jsonscan

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// told is a scanner's account of a document, one line for each call.
func told(text string, size int) (string, error) {
	var b strings.Builder
	name := func(p Path) string {
		var n strings.Builder
		for i := range p.Len() {
			if k := p.Index(i); k >= 0 {
				fmt.Fprintf(&n, "[%d]", k)
			} else {
				fmt.Fprintf(&n, ".%s", p.Key(i))
			}
		}
		return n.String()
	}
	s := Scanner{On: Handler{
		Begin: func(p Path, k Kind) { fmt.Fprintf(&b, "begin %s %d\n", name(p), k) },
		End:   func(p Path, k Kind) { fmt.Fprintf(&b, "end %s %d\n", name(p), k) },
		Value: func(p Path, v Value) { fmt.Fprintf(&b, "%s = %d %q %v %d\n", name(p), v.Kind, v.Text, v.Cut, v.Size) },
	}}
	for len(text) > 0 {
		n := min(size, len(text))
		if _, err := s.Write([]byte(text[:n])); err != nil {
			return b.String(), err
		}
		text = text[n:]
	}
	return b.String(), s.Close()
}

func TestADocumentIsToldInWhateverPiecesItComes(t *testing.T) {
	text := `{"a": [1, -2.5e+3, true, null, {"b": "x\n\u00e9\ud83d\ude00\"\\\/"}], "": {}, "c":[[],"\ud83d!"]} [] "top" 7 `
	want := `begin  4
begin .a 5
.a[0] = 2 "1" false 1
.a[1] = 2 "-2.5e+3" false 7
.a[2] = 1 "true" false 4
.a[3] = 0 "null" false 4
begin .a[4] 4
.a[4].b = 3 "x\né😀\"\\/" false 11
end .a[4] 4
end .a 5
begin . 4
end . 4
begin .c 5
begin .c[0] 5
end .c[0] 5
.c[1] = 3 "�!" false 4
end .c 5
end  4
begin  5
end  5
 = 3 "top" false 3
 = 2 "7" false 1
`
	for size := range len(text) {
		if got, err := told(text, size+1); got != want || err != nil {
			t.Fatalf("pieces of %d: %v\n%s", size+1, err, got)
		}
	}
}

func TestWhatIsNoJSONEndsWithAnError(t *testing.T) {
	for text, want := range map[string]error{
		`{"a"`: ErrTruncated, `{"a":`: ErrTruncated, `[1,`: ErrTruncated, `"abc`: ErrTruncated, `{`: ErrTruncated, `tru`: ErrSyntax,
		`{a:1}`: ErrSyntax, `{"a" 1}`: ErrSyntax, `[1 2]`: ErrSyntax, `[1}`: ErrSyntax, `{"a":1]`: ErrSyntax, `"\x"`: ErrSyntax, `"\u00g0"`: ErrSyntax,
		`[01]`: ErrSyntax, `[1.]`: ErrSyntax, `[+1]`: ErrSyntax, `[--1]`: ErrSyntax, `[1e]`: ErrSyntax, `}`: ErrSyntax, `[1,]`: ErrSyntax, `{"a":1,}`: ErrSyntax,
		`<html>`:                       ErrSyntax,
		strings.Repeat("[", 513):       ErrDeep,
		"[" + strings.Repeat("1", 100): ErrSyntax,
	} {
		for _, size := range []int{1, 3, 1 << 20} {
			if _, err := told(text, size); !errors.Is(err, want) {
				t.Errorf("%.40q in pieces of %d: %v, want %v", text, size, err, want)
			}
		}
	}
}

func TestLongTextsAreCutAndCounted(t *testing.T) {
	key := strings.Repeat("k", 1000)
	var got Value
	var text string
	long := false
	s := Scanner{MaxText: 10, On: Handler{Value: func(p Path, v Value) { got, text, long = v, string(v.Text), p.Key(0) == nil }}}
	if _, err := s.Write([]byte(`{"` + key + `":"` + strings.Repeat("x", 100_000) + `"}`)); err != nil {
		t.Fatal(err)
	}
	if text != "xxxxxxxxxx" || !got.Cut || got.Size != 100_000 || !long {
		t.Errorf("%q %+v %v", text, got, long)
	}
}

func TestATextOfEscapesCostsNoMoreThanItsLength(t *testing.T) {
	s := Scanner{}
	text := []byte(`"` + strings.Repeat(`\n`, 4<<20) + `"`) // searching all of it for each escape would take days
	if _, err := s.Write(text); err != nil || s.Documents() != 1 {
		t.Fatal(err)
	}
}

func TestAHundredMegabytesAreNotHeld(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s := Scanner{On: Handler{Value: func(Path, Value) {}}}
	piece := []byte(`{"role":"user","content":"` + strings.Repeat("word ", 20_000) + `"},`)
	write := func(p []byte) {
		if _, err := s.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	write([]byte(`{"messages":[`))
	total := 0
	for total < 100<<20 {
		write(piece)
		total += len(piece)
	}
	write([]byte(`{}]}`))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 4<<20 {
		t.Errorf("%d bytes were allocated for %d", grown, total)
	}
}

func FuzzTheScannerAgreesWithTheStandardLibrary(f *testing.F) {
	for _, seed := range []string{`{"a":[1,2,{"b":"\u00e9"}]}`, `[]`, `{"x":-1.5e3,"y":null}`, `"\ud800"`, `{"a"`, `[1,]`, "[\"\x00\"]"} {
		f.Add(seed, 3)
	}
	f.Fuzz(func(t *testing.T, text string, size int) {
		size = max(1, size&0xff)
		got, err := told(text, size)
		whole, wholeErr := told(text, max(1, len(text)))
		if got != whole || (err == nil) != (wholeErr == nil) {
			t.Fatalf("pieces of %d tell something else:\n%s\n%s", size, got, whole)
		}
		if json.Valid([]byte(text)) && err != nil && !errors.Is(err, ErrDeep) && !longWord(text) {
			t.Fatalf("valid JSON is refused: %v", err)
		}
	})
}

// longWord reports whether there may be a number that is longer than is read.
func longWord(text string) bool { return len(text) > maxWord }
