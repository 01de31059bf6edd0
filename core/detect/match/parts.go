package match

// part is a part of a text.
type part struct{ from, to int }

// dirty finds the parts of a text in which a pattern may be written otherwise than as it is: bytes in a row that are all of patterns or
// special, with something special among them, and enough for a pattern or at the end of the text. What is in no such part is only looked at as it is.
func (s *Secrets) dirty(raw []byte, parts []part) []part {
	special := stopsOf(raw, true)
	end := 0
	for at := special.from(0); at < len(raw); at = special.from(end) {
		from := at
		for from > end && s.within[raw[from-1]] {
			from--
		}
		for end = at + 1; end < len(raw) && s.within[raw[end]]; end++ {
		}
		if end-from >= s.shortest || end == len(raw) {
			parts = append(parts, part{from, end})
		}
	}
	return parts
}

// prepare notes which bytes patterns have, and which one none has.
func (s *Secrets) prepare() {
	for _, set := range []*Set{s.plain, s.packed} {
		for _, p := range set.patterns {
			for _, c := range p {
				s.within[c] = true
			}
			if s.shortest == 0 || len(p) < s.shortest {
				s.shortest = len(p)
			}
		}
	}
	for _, c := range specials {
		s.within[c] = true
	}
	for c := range "0123456789abcdefABCDEFunrt/\"" { // what an escape may have behind its beginning
		s.within["0123456789abcdefABCDEFunrt/\""[c]] = true
	}
	for c, in := range s.within {
		if !in {
			s.between = byte(c)
		}
	}
}
