// Package strict stands between a guest's connection and net/http's server and lets through only HTTP/1 requests that all implementations
// read alike. Where they differ, one sees two requests in what another takes for one, and the second was never judged (request smuggling).
//
// The bytes pass unchanged. A byte that makes a request ambiguous does not: reading ends before it with an Error, and so before the server
// has the whole head of that request. It is stricter than the standards: nothing that clients send today is refused, but much that is legal.
package strict

import (
	"fmt"
	"io"
	"sync/atomic"
)

// Limits bounds the head of a request; zeros are the defaults named.
type Limits struct {
	// Head is its length in bytes, default 64 KiB; Headers how many lines it may have, default 128.
	Head, Headers int
}

// maxTrailer bounds what comes after the last chunk, in bytes; net/http takes no more than 4 KiB.
const maxTrailer = 2 << 10

// Error is a request that is refused.
type Error struct {
	// Kind names what is wrong, for the record.
	Kind Kind
	// Offset is where, in bytes from the begin of the connection.
	Offset int64
}

// Error says what is wrong.
func (e *Error) Error() string {
	return fmt.Sprintf("not a request that all read alike: %s (at byte %d)", e.Kind, e.Offset)
}

// Kind is a reason to refuse a request.
type Kind string

// The kinds.
const (
	BadMethod         Kind = "malformed method"
	BadTarget         Kind = "malformed target"
	BadVersion        Kind = "neither HTTP/1.0 nor HTTP/1.1"
	BadLineEnd        Kind = "line that does not end in CR LF"
	BadName           Kind = "malformed header name"
	BadValue          Kind = "control character in a header value"
	Folded            Kind = "folded header line"
	TooLong           Kind = "head over the limit"
	TooMany           Kind = "too many header lines"
	BadLength         Kind = "malformed Content-Length"
	SecondLength      Kind = "more than one Content-Length"
	BadEncoding       Kind = "Transfer-Encoding other than chunked"
	SecondEncoding    Kind = "more than one Transfer-Encoding"
	LengthAndEncoding Kind = "both Content-Length and Transfer-Encoding"
	OldEncoding       Kind = "Transfer-Encoding in HTTP/1.0"
	SecondHost        Kind = "more than one Host"
	ConnectBody       Kind = "CONNECT with a body"
	BadChunk          Kind = "malformed chunk"
	BadTrailer        Kind = "header that does not belong after the body"
)

// Reader is the checked connection. Read is for one goroutine at a time; the other methods are for any.
type Reader struct {
	r io.Reader

	off    atomic.Bool
	failed atomic.Pointer[Error]
	heads  atomic.Int64
	passed int64
	machine
}

// NewReader makes a Reader of the connection r, at the begin of a request.
func NewReader(r io.Reader, limits Limits) *Reader {
	if limits.Head <= 0 {
		limits.Head = 64 << 10
	}
	if limits.Headers <= 0 {
		limits.Headers = 128
	}
	return &Reader{r: r, machine: machine{limits: limits}}
}

// Off lets everything through from now on: the connection no longer is HTTP/1. It has to be called after a request to upgrade or connect
// was read and before its client is told yes. A client that sends more before it is told so is refused, since it may be told no.
func (s *Reader) Off() { s.off.Store(true) }

// Heads counts the heads of requests that have passed whole.
func (s *Reader) Heads() int64 { return s.heads.Load() }

// Err is what has ended the reading, or nil.
func (s *Reader) Err() *Error { return s.failed.Load() }

// Read reads what is checked. Errors of the connection come back as they are.
func (s *Reader) Read(p []byte) (int, error) {
	if err := s.Err(); err != nil {
		return 0, err
	}
	n, err := s.r.Read(p)
	if n <= 0 || s.off.Load() {
		return n, err //nolint:wrapcheck // as it is
	}
	good, kind := s.scan(p[:n])
	s.heads.Store(s.wholeHeads)
	s.passed += int64(good)
	if kind == "" {
		return n, err //nolint:wrapcheck // as it is
	}
	failure := &Error{Kind: kind, Offset: s.passed}
	s.failed.Store(failure)
	if good > 0 {
		return good, nil // what was before may be whole requests
	}
	return 0, failure
}
