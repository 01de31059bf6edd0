// Package match finds many byte patterns at once in a stream that is cut anywhere, also where they are written in base64, percent-encoded or
// with JSON's escapes, and puts something else in their place. Nothing is held back but what may be the beginning of a pattern.
package match

import (
	"bytes"
	"fmt"
	"slices"
)

const (
	// MinPattern and MaxPattern bound one pattern, MaxPatterns their number.
	MinPattern, MaxPattern, MaxPatterns = 4, 8 << 10, 4096
	// block is how many bytes say how far to move on, tableBits the size of the table for that.
	block, tableBits = 3, 15
)

// Set is patterns that are looked for together, after Wu and Manber: most bytes of a text are never looked at.
type Set struct {
	patterns [][]byte
	// window is the length of the shortest pattern: it says how much is looked at in one place.
	window, longest int
	shift           [1 << tableBits]uint8
	// buckets has, by the end of their first window bytes, the patterns, the longest first.
	buckets map[uint16][]int32
	// begins has the first bytes of patterns, beginPairs the first two.
	begins     [256]bool
	beginPairs map[[2]byte]bool
}

// NewSet makes a set. A pattern is named by its place in the list.
func NewSet(patterns [][]byte) (*Set, error) {
	if len(patterns) > MaxPatterns {
		return nil, fmt.Errorf("make pattern set: %d patterns are more than %d", len(patterns), MaxPatterns)
	}
	s := &Set{patterns: patterns, window: 255, buckets: map[uint16][]int32{}, beginPairs: map[[2]byte]bool{}}
	for i, p := range patterns {
		if len(p) < MinPattern || len(p) > MaxPattern {
			return nil, fmt.Errorf("make pattern set: pattern %d has %d bytes, not %d to %d", i, len(p), MinPattern, MaxPattern)
		}
		s.window, s.longest = min(s.window, len(p)), max(s.longest, len(p))
	}
	most := s.window - block + 1
	for i := range s.shift {
		s.shift[i] = uint8(most) //nolint:gosec // at most 253
	}
	for i, p := range patterns {
		s.begins[p[0]], s.beginPairs[[2]byte{p[0], p[1]}] = true, true
		for end := block; end <= s.window; end++ {
			h := hash(p, end)
			s.shift[h] = min(s.shift[h], uint8(s.window-end)) //nolint:gosec // less than window
		}
		h := hash(p, s.window)
		s.buckets[h] = append(s.buckets[h], int32(i))
	}
	for _, b := range s.buckets {
		slices.SortStableFunc(b, func(x, y int32) int { return len(patterns[y]) - len(patterns[x]) })
	}
	return s, nil
}

// hash is of the block that ends at end.
func hash(p []byte, end int) uint16 {
	return (uint16(p[end-3])<<10 ^ uint16(p[end-2])<<5 ^ uint16(p[end-1])) & (1<<tableBits - 1)
}

// Longest is the length of the longest pattern, 0 of an empty set.
func (s *Set) Longest() int { return s.longest }

// Find gives the first place at or after from where a pattern is, and which; of several there the longest. No pattern is -1.
func (s *Set) Find(text []byte, from int) (at, pattern int) {
	if len(s.patterns) == 0 {
		return 0, -1
	}
	for end := from + s.window; end <= len(text); {
		h := hash(text, end)
		if skip := int(s.shift[h]); skip > 0 {
			end += skip
			continue
		}
		start := end - s.window
		for _, i := range s.buckets[h] {
			if bytes.HasPrefix(text[start:], s.patterns[i]) {
				return start, int(i)
			}
		}
		end++
	}
	return 0, -1
}

// Partial gives the first place at or after from where the rest of the text is the beginning of a pattern, and no whole one;
// len(text) if there is none.
func (s *Set) Partial(text []byte, from int) int {
	for at := max(from, len(text)-s.longest+1); at < len(text); at++ {
		if !s.begins[text[at]] {
			continue
		}
		rest := text[at:]
		if len(rest) > 1 && !s.beginPairs[[2]byte{rest[0], rest[1]}] {
			continue
		}
		for _, p := range s.patterns {
			if len(p) > len(rest) && bytes.HasPrefix(p, rest) {
				return at
			}
		}
	}
	return len(text)
}
