package dns

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// raw is a question with the name "www.example.org", with a change to its bytes.
func raw(t testing.TB, change func(b []byte) []byte) []byte {
	t.Helper()
	return change(question(t, "www.example.org.", dns.TypeA, nil))
}

// named is a question whose name is these labels, whatever their lengths.
func named(labels ...string) []byte {
	b := []byte{0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for _, l := range labels {
		b = append(append(b, byte(len(l))), l...)
	}
	return append(b, 0, 0, 1, 0, 1)
}

// attack is a message and what it is answered with; silent is nothing.
type attack struct {
	name string
	msg  []byte
	want int
}

const silent = -1

// longestLabels are a name of 253 characters.
func longestLabels() []string {
	return []string{strings.Repeat("a", 63), strings.Repeat("b", 63), strings.Repeat("c", 63), strings.Repeat("d", 49), "example", "org"}
}

func headAttacks(t *testing.T) []attack {
	t.Helper()
	same := func(b []byte) []byte { return b }
	set := func(at int, v uint16) func([]byte) []byte {
		return func(b []byte) []byte { binary.BigEndian.PutUint16(b[at:], v); return b }
	}
	return []attack{
		{"sound", raw(t, same), dns.RcodeSuccess},
		{"too short for a header", make([]byte, 11), silent},
		{"an answer", raw(t, set(2, 0x8180)), silent},
		{"an answer that is cut", make11QR(), silent},
		{"header only", make([]byte, 12), dns.RcodeFormatError},
		{"opcode status", raw(t, set(2, 2<<11)), dns.RcodeNotImplemented},
		{"opcode update", raw(t, set(2, 5<<11)), dns.RcodeNotImplemented},
		{"no question", raw(t, set(4, 0)), dns.RcodeFormatError},
		{"two questions", raw(t, func(b []byte) []byte { b[5] = 2; return append(b, b[12:]...) }), dns.RcodeFormatError},
		{"65535 questions", raw(t, set(4, 65535)), dns.RcodeFormatError},
		{"answers in a question", raw(t, set(6, 1)), dns.RcodeFormatError},
		{"authority in a question", raw(t, set(8, 1)), dns.RcodeFormatError},
		{"65535 additional records", raw(t, set(10, 65535)), dns.RcodeFormatError},
		{"additional record that is not there", raw(t, set(10, 1)), dns.RcodeFormatError},
		{"a tail", raw(t, func(b []byte) []byte { return append(b, 0) }), dns.RcodeFormatError},
		{"cut in the name", raw(t, func(b []byte) []byte { return b[:15] }), dns.RcodeFormatError},
		{"cut in the type", raw(t, func(b []byte) []byte { return b[:len(b)-3] }), dns.RcodeFormatError},
		{"class chaos", raw(t, func(b []byte) []byte { b[len(b)-1] = 3; return b }), dns.RcodeRefused},
		{"class any", raw(t, func(b []byte) []byte { b[len(b)-1] = 255; return b }), dns.RcodeRefused},
		{"a zone transfer", raw(t, func(b []byte) []byte { b[len(b)-3] = 252; return b }), dns.RcodeRefused},
		{"OPT as a type", raw(t, func(b []byte) []byte { b[len(b)-3] = 41; return b }), dns.RcodeFormatError},
		{"a huge question", raw(t, func(b []byte) []byte { return append(b, make([]byte, 60000)...) }), dns.RcodeFormatError},
	}
}

func nameAttacks() []attack {
	long := longestLabels()
	return []attack{
		{"a name that points at itself", []byte{0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1}, dns.RcodeFormatError},
		{"a name that points into the header", []byte{0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 'a', 0xc0, 2, 0, 1, 0, 1}, dns.RcodeFormatError},
		{"a reserved label type", []byte{0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x40, 12, 0, 0, 1, 0, 1}, dns.RcodeFormatError},
		{"a label over 63", named(strings.Repeat("a", 64), "example", "org"), dns.RcodeFormatError},
		{"a name over 255", named(append([]string{"x"}, long...)...), dns.RcodeFormatError},
		{"the longest name", named(long...), dns.RcodeSuccess},
		{"a dot in a label", named("www.example", "org"), dns.RcodeNameError},
		{"a zero byte in a label", named("www\x00", "example", "org"), dns.RcodeNameError},
		{"a newline in a label", named("www\n", "example", "org"), dns.RcodeNameError},
		{"bytes that are no text", named("\xff\xfe", "example", "org"), dns.RcodeNameError},
		{"letters that look like others", named("ехample", "example", "org"), dns.RcodeNameError},
		{"a disguised A-label", named("xn--a", "example", "org"), dns.RcodeNameError},
		{"a blank", named("a b", "example", "org"), dns.RcodeNameError},
		{"an address", named("10", "0", "0", "1"), dns.RcodeNameError},
		{"an address in brackets", named("[::1]"), dns.RcodeNameError},
		{"a number", named("2130706433"), dns.RcodeNameError},
		{"the root", named(), dns.RcodeRefused},
	}
}

func ednsAttacks(t *testing.T) []attack {
	t.Helper()
	opt := func(ttl uint32, name ...byte) func([]byte) []byte {
		return func(b []byte) []byte {
			b[11]++
			b = append(append(b, name...), 0, 41, 0xff, 0xff)
			return append(binary.BigEndian.AppendUint32(b, ttl), 0, 0)
		}
	}
	return []attack{
		{"EDNS", raw(t, opt(0, 0)), dns.RcodeSuccess},
		{"EDNS version 1", raw(t, opt(1<<16, 0)), dns.RcodeBadVers},
		{"EDNS twice", opt(0, 0)(raw(t, opt(0, 0))), dns.RcodeFormatError},
		{"EDNS of a name", raw(t, opt(0, 1, 'a', 0)), dns.RcodeFormatError},
		{"EDNS longer than the message", raw(t, func(b []byte) []byte { b = opt(0, 0)(b); b[len(b)-1] = 200; return b }), dns.RcodeFormatError},
	}
}

func TestAttacksOfTheGuest(t *testing.T) {
	g := newRig(t, nil, "www.example.org. 30 A 93.184.216.34", strings.Join(longestLabels(), ".")+". 30 A 93.184.216.34")
	for _, c := range slices.Concat(headAttacks(t), nameAttacks(), ednsAttacks(t)) {
		t.Run(c.name, func(t *testing.T) {
			for _, tcp := range []bool{false, true} {
				m := g.ask(t, c.msg, tcp)
				switch {
				case m == nil && c.want != silent:
					t.Errorf("no answer, want %s", dns.RcodeToString[c.want])
				case m != nil && m.Rcode != c.want:
					t.Errorf("%s, want %d", dns.RcodeToString[m.Rcode], c.want)
				}
			}
			e := g.events.last(t)
			if (c.want == dns.RcodeSuccess) != (e.Decision == Allowed) {
				t.Errorf("recorded as %+v", e)
			}
		})
	}
	if n := g.zone.asked.Load(); n != 4 {
		t.Errorf("upstream was asked %d times", n)
	}
}

func make11QR() []byte {
	b := make([]byte, 12)
	b[2] = 0x80
	return b
}

func TestAnswersFitTheClient(t *testing.T) {
	g := newRig(t, nil)
	for range 40 {
		g.zone.add(t, "big.example.org. 30 TXT "+strings.Repeat("x", 90)+string(rune('a'+g.zone.asked.Add(1)%26))+strings.Repeat("y", int(g.zone.asked.Load())))
	}
	edns := func(size uint16) func(*dns.Msg) {
		return func(m *dns.Msg) { m.SetEdns0(size, true) }
	}
	for _, c := range []struct {
		name      string
		change    func(*dns.Msg)
		tcp       bool
		limit     int
		truncated bool
	}{
		{"without EDNS", nil, false, 512, true},
		{"EDNS below the least", edns(100), false, 512, true},
		{"EDNS", edns(1000), false, 1000, true},
		{"EDNS above the most", edns(65535), false, 1232, true},
		{"TCP", nil, true, 65535, false},
	} {
		wire := question(t, "big.example.org.", dns.TypeTXT, c.change)
		m := g.ask(t, wire, c.tcp)
		packed, err := m.Pack()
		m.Compress = true
		small, _ := m.Pack()
		if err != nil || len(small) > c.limit || m.Truncated != c.truncated || !c.truncated && len(m.Answer) != 40 {
			t.Errorf("%s: %d bytes (limit %d), %d records, truncated %v", c.name, len(packed), c.limit, len(m.Answer), m.Truncated)
		}
		if opt := m.IsEdns0(); (opt != nil) != (c.change != nil) || opt != nil && (opt.Version() != 0 || !opt.Do() || opt.UDPSize() != maxUDP) {
			t.Errorf("%s: EDNS %v", c.name, opt)
		}
	}
}
