//go:build linux

package castore

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // the format's choice; the password is public
	"encoding/binary"
	"errors"
	"time"
)

// Java's own format of stores, "JKS": magic, version, number of entries, the entries, and SHA-1 over a password, a phrase and
// all before.
const (
	magicJKS, versionJKS = 0xfeedfeed, 2
	privateKey, trusted  = 1, 2
	alias, kindOfCert    = "capsem", "X.509"
	maxEntries, maxChain = 4096, 16
	headJKS, phraseJKS   = 12, "Mighty Aphrodite"
	passwordJKS          = "changeit" // what every Java installation uses
)

var (
	errKeyStore = errors.New("its store is damaged")
	errFormat   = errors.New("its store has another format than JKS")
	errPassword = errors.New("its store has a password of its own")
)

// addToKeyStore returns a store with the certificate as its entry "capsem", in place of the one before.
func addToKeyStore(text, cert []byte, created time.Time) ([]byte, error) {
	if len(text) < headJKS+sha1.Size || binary.BigEndian.Uint32(text) != magicJKS {
		return nil, errFormat
	}
	body, sum := text[:len(text)-sha1.Size], text[len(text)-sha1.Size:]
	if binary.BigEndian.Uint32(body[4:]) != versionJKS {
		return nil, errFormat
	}
	if !bytes.Equal(digest(body), sum) {
		return nil, errPassword
	}
	count := binary.BigEndian.Uint32(body[8:])
	if count >= maxEntries {
		return nil, errKeyStore
	}
	out := append(make([]byte, 0, len(text)+len(cert)+64), body[:headJKS]...)
	left := count
	r := reader{body[headJKS:]}
	for range count {
		whole := r.rest
		name, ok := r.entry()
		if !ok {
			return nil, errKeyStore
		}
		if name == alias {
			left--
			continue
		}
		out = append(out, whole[:len(whole)-len(r.rest)]...)
	}
	if len(r.rest) > 0 {
		return nil, errKeyStore
	}
	out = append(out, entry(cert, created)...)
	binary.BigEndian.PutUint32(out[8:], left+1)
	return append(out, digest(out)...), nil
}

// entry encodes a trusted certificate.
func entry(cert []byte, created time.Time) []byte {
	out := binary.BigEndian.AppendUint32(nil, trusted)
	out = appendText(out, alias)
	out = binary.BigEndian.AppendUint64(out, uint64(max(created.UnixMilli(), 0)))
	out = appendText(out, kindOfCert)
	out = binary.BigEndian.AppendUint32(out, uint32(len(cert))) //nolint:gosec // bounded by maxCert
	return append(out, cert...)
}

func appendText(out []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(out, uint16(len(s))), s...) //nolint:gosec // two constants
}

// digest is over the password in UTF-16, the phrase and the store.
func digest(body []byte) []byte {
	h := sha1.New() //nolint:gosec // the format's choice
	for _, c := range []byte(passwordJKS) {
		h.Write([]byte{0, c})
	}
	h.Write([]byte(phraseJKS))
	h.Write(body)
	return h.Sum(nil)
}

// reader takes a store apart.
type reader struct{ rest []byte }

func (r *reader) take(n uint64) ([]byte, bool) {
	if n > uint64(len(r.rest)) {
		return nil, false
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b, true
}

func (r *reader) u32() (uint64, bool) {
	b, ok := r.take(4)
	if !ok {
		return 0, false
	}
	return uint64(binary.BigEndian.Uint32(b)), true
}

// text reads a string after its length.
func (r *reader) text() (string, bool) {
	b, ok := r.take(2)
	if !ok {
		return "", false
	}
	b, ok = r.take(uint64(binary.BigEndian.Uint16(b)))
	return string(b), ok
}

// blob passes over bytes after their length.
func (r *reader) blob() bool {
	n, ok := r.u32()
	if ok {
		_, ok = r.take(n)
	}
	return ok
}

// cert passes over a certificate with its kind.
func (r *reader) cert() bool {
	_, ok := r.text()
	return ok && r.blob()
}

// entry passes over one entry and returns its alias.
func (r *reader) entry() (string, bool) {
	kind, ok := r.u32()
	if !ok {
		return "", false
	}
	name, ok := r.text()
	if !ok {
		return "", false
	}
	if _, ok = r.take(8); !ok {
		return "", false
	}
	switch kind {
	case trusted:
		return name, r.cert()
	case privateKey:
		if !r.blob() {
			return "", false
		}
		chain, ok := r.u32()
		if !ok || chain > maxChain {
			return "", false
		}
		for range chain {
			if !r.cert() {
				return "", false
			}
		}
		return name, true
	}
	return "", false
}
