package ledger

import (
	"bytes"
	"testing"
)

func FuzzHead(f *testing.F) {
	h := Head{Session: testSession, Number: 3, Seq: 99, Hash: genesis("x")}
	check(f, h.sign(headContext, testKey(f), testTime))
	good, err := encodeHead(&h)
	check(f, err)
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte{})
	f.Add([]byte{0x86, 0x60, 0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0x9a, 0xff, 0xff, 0xff, 0xff})
	key := public(testKey(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := decodeHead(data)
		if err != nil {
			return
		}
		if h.Verify(key) {
			t.Fatal("verified under a key that signed nothing")
		}
		again, err := encodeHead(h)
		if err != nil {
			t.Fatal(err)
		}
		h2, err := decodeHead(again)
		if err != nil || h2.Session != h.Session || h2.Number != h.Number || h2.Seq != h.Seq || h2.Hash != h.Hash || !bytes.Equal(h2.Signature, h.Signature) {
			t.Fatalf("%v: %+v is not %+v", err, h2, h)
		}
	})
}

func TestEveryPartOfAHeadIsSigned(t *testing.T) {
	key := testKey(t)
	changes := map[string]func(h *Head){
		"session":   func(h *Head) { h.Session += "x" },
		"number":    func(h *Head) { h.Number++ },
		"seq":       func(h *Head) { h.Seq-- },
		"hash":      func(h *Head) { h.Hash[31] ^= 1 },
		"time":      func(h *Head) { h.Time = stamp(testTime.AddDate(0, 0, 1)) },
		"signature": func(h *Head) { h.Signature[0] ^= 1 },
		"length":    func(h *Head) { h.Signature = h.Signature[:10] },
	}
	for name, change := range changes {
		h := Head{Session: testSession, Number: 1, Seq: 5}
		check(t, h.sign(headContext, key, testTime))
		if !h.Verify(public(key)) || h.Verify(nil) || h.signed(sealContext, public(key)) {
			t.Fatal("a good head is refused, or a bad key taken")
		}
		if change(&h); h.Verify(public(key)) {
			t.Errorf("%s is not signed", name)
		}
	}
}
