package authority

import (
	"container/list"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"time"

	"capsem/core/policy"
)

// maxCommonName is the longest common name there may be (RFC 5280).
const maxCommonName = 64

// normal is the spelling under which a leaf is kept, and the address if the name is one.
func normal(name string) (host string, addr netip.Addr, err error) {
	if host, err = policy.NormalHost(name); err != nil {
		return "", addr, fmt.Errorf("check name: %w", err)
	}
	if addr, err = netip.ParseAddr(host); err != nil {
		addr = netip.Addr{} // a name
	}
	return host, addr, nil
}

// serial is a positive number of 127 random bits.
func serial() (*big.Int, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:]), nil
}

// mint makes a leaf.
func (a *Authority) mint(host string, addr netip.Addr) (*tls.Certificate, error) {
	number, err := serial()
	if err != nil {
		return nil, err
	}
	now := a.now()
	template := &x509.Certificate{
		SerialNumber: number, Subject: pkix.Name{Organization: []string{"capsem"}},
		NotBefore: now.Add(-leafBefore), NotAfter: now.Add(leafAfter),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	if a.cert.NotAfter.Before(template.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	if len(host) <= maxCommonName {
		template.Subject.CommonName = host
	}
	if addr.IsValid() {
		template.IPAddresses = []net.IP{addr.AsSlice()}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &a.leafKey.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: a.leafKey, Leaf: leaf}, nil
}

// leaves keeps those that were used last.
type leaves struct {
	most   int
	byName map[string]*list.Element
	order  *list.List
}

type kept struct {
	name string
	leaf *tls.Certificate
	made time.Time
}

func newLeaves(most int) *leaves {
	return &leaves{most: most, byName: map[string]*list.Element{}, order: list.New()}
}

// get finds a leaf that is to be handed out still; a clock that has been set back makes it old, too.
func (l *leaves) get(name string, now time.Time) (*tls.Certificate, bool) {
	e, ok := l.byName[name]
	if !ok {
		return nil, false
	}
	k, ok := e.Value.(*kept)
	if age := now.Sub(k.made); !ok || age < -leafFresh || age > leafFresh {
		return nil, false
	}
	l.order.MoveToFront(e)
	return k.leaf, true
}

func (l *leaves) put(name string, leaf *tls.Certificate, now time.Time) {
	if e, ok := l.byName[name]; ok {
		l.order.Remove(e)
	}
	l.byName[name] = l.order.PushFront(&kept{name, leaf, now})
	if l.order.Len() > l.most {
		if k, ok := l.order.Remove(l.order.Back()).(*kept); ok {
			delete(l.byName, k.name)
		}
	}
}
