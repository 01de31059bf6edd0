package castore

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"testing"
)

// What crypto/x509 takes for a CA's certificate we read the same.
func FuzzParse(f *testing.F) {
	f.Add(authority(f, "one", true))
	f.Add(authority(f, "two", false))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		ours, err := parse(text)
		block, _ := pem.Decode(text)
		if block == nil {
			if err == nil {
				t.Error("it is not even PEM")
			}
			return
		}
		theirs, theirErr := x509.ParseCertificate(block.Bytes)
		if err != nil || theirErr != nil {
			return
		}
		if !theirs.IsCA || !bytes.Equal(theirs.RawSubject, ours.subject) || !theirs.NotBefore.Equal(ours.notBefore) {
			t.Errorf("%+v, and %v", theirs, ours)
		}
	})
}
