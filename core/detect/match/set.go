// Package match finds many byte patterns at once in a stream that is cut anywhere, also where they are written in base64, percent-encoded or
// with JSON's escapes, and puts something else in their place. Nothing is held back but what may be the beginning of a pattern.
package match

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
)

const (
	// MinPattern and MaxPattern bound one pattern, MaxPatterns their number.
	MinPattern, MaxPattern, MaxPatterns = 4, 8 << 10, 4096
	// block is how many bytes are looked at in one place, maxHead how many of the beginning of a pattern tell it.
	block, maxHead = 3, 32
	// minFilter and maxFilter bound the filter: two to the power of them is its bits.
	minFilter, maxFilter = 12, 18
	// spread is an odd number that spreads blocks over the filter.
	spread = 0x9e3779b1
)

// Set is patterns that are looked for together. Only every so many bytes a block of the text is looked up in a filter, which has all blocks that
// can stand there if a pattern goes over that place; the look-ups do not wait for one another.
type Set struct {
	patterns [][]byte
	// head is as long as the shortest pattern, and at most maxHead; longest is the longest pattern.
	head, longest int
	// stride is how far apart blocks are looked at: every pattern has exactly one that begins in its first stride bytes.
	stride int
	filter []uint64
	shift  uint
	// offsets has, by the place of a block in the filter, where in heads of patterns it is, a bit each; begin is a filter of the first four bytes.
	offsets []uint32
	begin   [1 << (minFilter - 6)]uint64
	// heads has the patterns by their first bytes, the longest first.
	heads map[string][]int32
	// begins has the first bytes of patterns, beginPairs the first two.
	begins     [256]bool
	beginPairs map[[2]byte]bool
}

// NewSet makes a set. A pattern is named by its place in the list.
func NewSet(patterns [][]byte) (*Set, error) {
	if len(patterns) > MaxPatterns {
		return nil, fmt.Errorf("make pattern set: %d patterns are more than %d", len(patterns), MaxPatterns)
	}
	s := &Set{patterns: patterns, head: maxHead, heads: map[string][]int32{}, beginPairs: map[[2]byte]bool{}}
	for i, p := range patterns {
		if len(p) < MinPattern || len(p) > MaxPattern {
			return nil, fmt.Errorf("make pattern set: pattern %d has %d bytes, not %d to %d", i, len(p), MinPattern, MaxPattern)
		}
		s.head, s.longest = min(s.head, len(p)), max(s.longest, len(p))
	}
	s.stride = s.head - block + 1
	size := uint(minFilter)
	for size < maxFilter && 1<<size < 64*s.stride*len(patterns) {
		size++
	}
	s.filter, s.shift, s.offsets = make([]uint64, 1<<(size-6)), 32-size, make([]uint32, 1<<size)
	for i, p := range patterns {
		s.begins[p[0]], s.beginPairs[[2]byte{p[0], p[1]}] = true, true
		for at := range s.stride {
			h := blockAt(p, at) * spread >> s.shift
			s.filter[h/64] |= 1 << (h % 64)
			s.offsets[h] |= 1 << at
		}
		first := firstOf(p)
		s.begin[first/64] |= 1 << (first % 64)
		head := string(p[:s.head])
		s.heads[head] = append(s.heads[head], int32(i))
	}
	for _, h := range s.heads {
		slices.SortStableFunc(h, func(x, y int32) int { return len(patterns[y]) - len(patterns[x]) })
	}
	return s, nil
}

// firstOf is where a text is in the filter of beginnings.
func firstOf(p []byte) uint32 { return binary.LittleEndian.Uint32(p) * spread >> (32 - minFilter) }

// blockAt is the block that begins at a place.
func blockAt(p []byte, at int) uint32 {
	return uint32(p[at]) | uint32(p[at+1])<<8 | uint32(p[at+2])<<16
}

// Longest is the length of the longest pattern, 0 of an empty set.
func (s *Set) Longest() int { return s.longest }

// Find gives the first place at or after from where a pattern is, and which; of several there the longest. No pattern is -1.
func (s *Set) Find(text []byte, from int) (at, pattern int) {
	if len(s.patterns) == 0 {
		return 0, -1
	}
	filter, shift, stride := s.filter, s.shift, s.stride
	i := from + stride - 1
	for ; i+8 <= len(text); i += stride {
		if stride == 2 { // short words: three blocks are looked at together
			v := binary.LittleEndian.Uint64(text[i:])
			a, b, c := uint32(v&0xffffff)*spread>>shift, uint32(v>>16&0xffffff)*spread>>shift, uint32(v>>32&0xffffff)*spread>>shift
			if (filter[a/64]>>(a%64)|filter[b/64]>>(b%64)|filter[c/64]>>(c%64))&1 == 0 {
				i += 4
				continue
			}
		}
		h := (binary.LittleEndian.Uint32(text[i:]) & 0xffffff) * spread >> shift
		if filter[h/64]>>(h%64)&1 == 0 {
			continue
		}
		if at, p := s.around(text, from, i); p >= 0 {
			return at, p
		}
	}
	for ; i+block <= len(text); i += stride {
		if at, p := s.around(text, from, i); p >= 0 {
			return at, p
		}
	}
	return 0, -1
}

// around looks for a pattern at or after from that has the block at i in its beginning.
func (s *Set) around(text []byte, from, i int) (at, pattern int) {
	for left := s.offsets[blockAt(text, i)*spread>>s.shift]; left != 0; {
		off := bits.Len32(left) - 1 // the last place first: it begins before the others
		left &^= 1 << off
		start := i - off
		if start < from || start+s.head > len(text) {
			continue
		}
		if first := firstOf(text[start:]); s.begin[first/64]>>(first%64)&1 == 0 {
			continue
		}
		for _, p := range s.heads[string(text[start:start+s.head])] {
			if bytes.HasPrefix(text[start:], s.patterns[p]) {
				return start, int(p)
			}
		}
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
