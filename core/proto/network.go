package proto

import (
	"errors"
	"fmt"
	"net/netip"
	"unicode/utf8"
)

// Bounds of a ProcessClaim and of name lookups.
const (
	maxParents, maxProcessName, maxProcessText = 16, 64, 4 << 10
	// MaxDNSMessage is the longest DNS message there can be (RFC 1035 4.2.2).
	MaxDNSMessage = 65535
)

// ProcessClaim is what the guest says of the process behind a connection or a lookup. Root of the guest can lie: it is
// shown and recorded as a claim, and no boundary rests on it.
type ProcessClaim struct {
	// PID is its number in the guest, UID its user; zero PID is an unknown process.
	PID int32  `cbor:"pid,omitempty"`
	UID uint32 `cbor:"uid,omitempty"`
	// Name is the kernel's short name, Exe the path of its program, CommandLine its arguments with spaces between.
	Name        string `cbor:"name,omitempty"`
	Exe         string `cbor:"exe,omitempty"`
	CommandLine string `cbor:"cmdline,omitempty"`
	// Parents are the short names of the processes above it, nearest first.
	Parents []string `cbor:"parents,omitempty"`
}

// Validate bounds every field.
func (p *ProcessClaim) Validate() error {
	switch {
	case p.PID < 0:
		return errors.New("process: negative number")
	case len(p.Name) > maxProcessName || len(p.Exe) > maxProcessText || len(p.CommandLine) > maxProcessText:
		return errors.New("process: field too long")
	case len(p.Parents) > maxParents:
		return errors.New("process: too many parents")
	}
	for _, text := range append([]string{p.Name, p.Exe, p.CommandLine}, p.Parents...) {
		if !utf8.ValidString(text) {
			return errors.New("process: a field is not UTF-8 text")
		}
	}
	for _, parent := range p.Parents {
		if len(parent) > maxProcessName {
			return errors.New("process: name of a parent too long")
		}
	}
	return nil
}

// NetworkOpen opens a stream on PortNetwork: one CBOR frame after the stream header, then the bytes of one TCP connection
// both ways. Each side half-closes when its end of the connection does; a reset stream is a reset connection.
type NetworkOpen struct {
	// Dest is where the process wanted to connect to, as address:port, before the redirection.
	Dest string `cbor:"dest"`
	// Process is who wants it.
	Process ProcessClaim `cbor:"process"`
}

// Validate bounds every field.
func (n *NetworkOpen) Validate() error {
	if len(n.Dest) > 64 {
		return errors.New("network: destination too long")
	}
	if _, err := netip.ParseAddrPort(n.Dest); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	return n.Process.Validate()
}

// DNSQuery is one frame from the guest on PortDNS. A stream carries any number of them at once; answers come in any order.
type DNSQuery struct {
	// ID is the guest's, to find the answer's place by. It is not the one in Message.
	ID uint32 `cbor:"id"`
	// TCP says that the client asked over TCP; else answers must fit what its message says of UDP.
	TCP bool `cbor:"tcp,omitempty"`
	// Process is who asks.
	Process ProcessClaim `cbor:"process"`
	// Message is the question as it came from the client.
	Message []byte `cbor:"message"`
}

// Validate bounds every field.
func (q *DNSQuery) Validate() error {
	if len(q.Message) == 0 || len(q.Message) > MaxDNSMessage {
		return errors.New("dns: a message of an impossible length")
	}
	return q.Process.Validate()
}

// DNSReply is the host's answer to the DNSQuery with the same ID.
type DNSReply struct {
	ID uint32 `cbor:"id"`
	// Message goes to the client as it is. Empty: the client gets nothing.
	Message []byte `cbor:"message,omitempty"`
}

// Validate bounds every field.
func (r *DNSReply) Validate() error {
	if len(r.Message) > MaxDNSMessage {
		return errors.New("dns: a message of an impossible length")
	}
	return nil
}
