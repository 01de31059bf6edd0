package detect

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"

	"github.com/zeebo/blake3"
)

const (
	// Window is how long a piece of a secret is that is found wherever it stands; shorter secrets are not looked for.
	Window = 16
	// maxOwn bounds how many windows are kept.
	maxOwn = 1 << 16
)

// Own knows the owner's secrets by keyed hashes of their pieces. It cannot tell what they are.
type Own struct {
	key [32]byte
	// in are random numbers for bytes that come into the window, out the same turned as they leave it.
	in, out [256]uint64
	// filter and rolling find windows that may be of a secret, exact says which are and of which.
	filter  [1 << 16 / 64]uint64
	rolling map[uint64]struct{}
	exact   map[[16]byte]string
}

// NewOwn makes the hashes of secrets, by name. Pieces without much in them (few different letters) are left out: they are in other texts too.
func NewOwn(secrets map[string][]byte) *Own {
	o := &Own{rolling: map[uint64]struct{}{}, exact: map[[16]byte]string{}}
	_, _ = rand.Read(o.key[:]) // never fails
	stream := o.keyed().Digest()
	for c := range o.in {
		var raw [8]byte
		_, _ = stream.Read(raw[:]) // never fails
		o.in[c] = binary.LittleEndian.Uint64(raw[:])
		o.out[c] = bits.RotateLeft64(o.in[c], Window)
	}
	for name, s := range secrets {
		for i := 0; i+Window <= len(s) && len(o.exact) < maxOwn; i++ {
			w := s[i : i+Window]
			if entropy(string(w)) < 2.5 {
				continue
			}
			h := o.hash(w)
			o.rolling[h] = struct{}{}
			o.filter[h&0xffff/64] |= 1 << (h % 64)
			o.exact[o.digest(w)] = name
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

func (o *Own) hash(w []byte) (h uint64) {
	for _, c := range w {
		h = bits.RotateLeft64(h, 1) ^ o.in[c]
	}
	return h
}

// find gives the names of secrets that have a piece in a text.
func (o *Own) find(text []byte, found func(name string, at int)) {
	if len(o.rolling) == 0 || len(text) < Window {
		return
	}
	h := o.hash(text[:Window])
	for i := 0; ; i++ {
		if o.filter[h&0xffff/64]&(1<<(h%64)) != 0 {
			if _, may := o.rolling[h]; may {
				if name, ok := o.exact[o.digest(text[i:i+Window])]; ok {
					found(name, i)
				}
			}
		}
		if i+Window >= len(text) {
			return
		}
		h = bits.RotateLeft64(h, 1) ^ o.out[text[i]] ^ o.in[text[i+Window]]
	}
}
