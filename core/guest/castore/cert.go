//go:build linux

package castore

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"time"
)

// certificate is what has to be known of a certificate. crypto/x509 would know all of it, and make the agent larger by an eighth.
type certificate struct {
	raw, subject []byte
	notBefore    time.Time
}

// signed and toSign are the parts of a certificate (RFC 5280, section 4.1).
type signed struct {
	Raw       asn1.RawContent
	ToSign    toSign
	Algorithm asn1.RawValue
	Signature asn1.BitString
}

type toSign struct {
	Raw        asn1.RawContent
	Version    int `asn1:"optional,explicit,default:0,tag:0"`
	Serial     *big.Int
	Algorithm  asn1.RawValue
	Issuer     asn1.RawValue
	Validity   struct{ NotBefore, NotAfter time.Time }
	Subject    asn1.RawValue
	PublicKey  asn1.RawValue
	IssuerID   asn1.BitString   `asn1:"optional,tag:1"`
	SubjectID  asn1.BitString   `asn1:"optional,tag:2"`
	Extensions []pkix.Extension `asn1:"optional,explicit,tag:3"`
}

// basicConstraints is the extension that says whether a certificate is one of a CA.
type basicConstraints struct {
	IsCA    bool `asn1:"optional"`
	MaxPath int  `asn1:"optional,default:-1"`
}

// parse reads exactly one CA certificate.
func parse(text []byte) (*certificate, error) {
	if len(text) > maxCert {
		return nil, errors.New("the certificate is too long")
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("not one certificate in PEM")
	}
	var c signed
	if rest, err := asn1.Unmarshal(block.Bytes, &c); err != nil || len(rest) > 0 {
		return nil, errors.Join(errors.New("the certificate cannot be read"), err)
	}
	for _, e := range c.ToSign.Extensions {
		if !e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 19}) {
			continue
		}
		var basic basicConstraints
		if rest, err := asn1.Unmarshal(e.Value, &basic); err == nil && len(rest) == 0 && basic.IsCA {
			return &certificate{c.Raw, c.ToSign.Subject.FullBytes, c.ToSign.Validity.NotBefore}, nil
		}
	}
	return nil, errors.New("the certificate is not of a CA")
}
