package detect

import (
	"crypto/rand"
	"encoding/binary"

	"github.com/zeebo/blake3"
)

const (
	// Window is how long a piece of a secret is that is found wherever it stands; shorter secrets are not looked for.
	Window = 16
	// maxOwn bounds how many windows are kept.
	maxOwn = 1 << 16
)

const (
	// gram is how many bytes of a window are looked up first. A window has one that begins at a multiple of ownStride, wherever it stands.
	gram, ownStride = 8, Window - gram + 1
	// minGrams and maxGrams bound the filters: two to the power of them is their bits.
	minGrams, maxGrams = 14, 22
)

// Own knows the owner's secrets by keyed hashes of their pieces. It keeps none of their text.
type Own struct {
	key [32]byte
	// spread are random odd numbers that spread grams over the filters, by the upper bits of the product.
	spread [2]uint64
	// filters have the grams of all windows; exact says which windows are of which secret.
	filters [2][]uint64
	shift   uint
	exact   map[[16]byte]string
}

// NewOwn makes the hashes of secrets, by name. Pieces without much in them (few different letters) are left out: they are in other texts too.
func NewOwn(secrets map[string][]byte) *Own {
	o := &Own{exact: map[[16]byte]string{}}
	_, _ = rand.Read(o.key[:]) // never fails
	var raw [16]byte
	_, _ = o.keyed().Digest().Read(raw[:]) // never fails
	o.spread = [2]uint64{binary.LittleEndian.Uint64(raw[:]) | 1, binary.LittleEndian.Uint64(raw[8:]) | 1}
	var windows [][]byte
	for name, s := range secrets {
		for i := 0; i+Window <= len(s) && len(o.exact) < maxOwn; i++ {
			w := s[i : i+Window]
			if entropy(string(w)) < 2.5 {
				continue
			}
			o.exact[o.digest(w)] = name
			windows = append(windows, w)
		}
	}
	bits := uint(minGrams)
	for bits < maxGrams && 1<<bits < 64*len(windows) {
		bits++
	}
	o.shift = 64 - bits
	for i := range o.filters {
		o.filters[i] = make([]uint64, 1<<(bits-6))
		for _, w := range windows {
			for at := range ownStride {
				h := binary.LittleEndian.Uint64(w[at:]) * o.spread[i] >> o.shift
				o.filters[i][h/64] |= 1 << (h % 64)
			}
		}
	}
	return o
}

func (o *Own) keyed() *blake3.Hasher {
	h, err := blake3.NewKeyed(o.key[:])
	if err != nil {
		panic(err) // a key of another length
	}
	return h
}

// digest is the keyed hash of a window.
func (o *Own) digest(w []byte) (out [16]byte) {
	h := o.keyed()
	_, _ = h.Write(w) // never fails
	copy(out[:], h.Sum(nil))
	return out
}

// find gives the names of secrets that have a piece in a text.
func (o *Own) find(text []byte, found func(name string, at int)) {
	if len(o.exact) == 0 {
		return
	}
	first, second, shift := o.filters[0], o.filters[1], o.shift
	for i := 0; i+gram <= len(text); i += ownStride {
		v := binary.LittleEndian.Uint64(text[i:])
		if h := v * o.spread[0] >> shift; first[h/64]>>(h%64)&1 == 0 {
			continue
		}
		if h := v * o.spread[1] >> shift; second[h/64]>>(h%64)&1 == 0 {
			continue
		}
		for at := max(0, i-ownStride+1); at <= i && at+Window <= len(text); at++ {
			if name, ok := o.exact[o.digest(text[at:at+Window])]; ok {
				found(name, at)
			}
		}
	}
}
