package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

const (
	// dataByte begins a data record.
	dataByte = 0xD7
	// maxRecord is the longest data record: what a virtio-serial port takes in one write.
	maxRecord = 32 << 10
	// recordHead and recordTail are the bytes around a payload.
	recordHead, recordTail = 8, 4
	maxPayload             = maxRecord - recordHead - recordTail
)

// errCorrupt is a byte sequence that no correct peer sends in one life.
var errCorrupt = errors.New("the bytes on the link make no sense")

// recordConn is what yamux runs on: data records of one session over a wire. Reads happen in yamux's receive goroutine only.
type recordConn struct {
	w *wire
	// nonce is the session's; peerTag ends the peer's records, ownTag ours.
	nonce           [16]byte
	peerTag, ownTag [4]byte
	check           frameChecker
	flow            *flow
	// tell wakes acker.
	tell chan struct{}

	// payload is what is left of the current record; used is its whole length on the wire.
	payload []byte
	used    int

	// mu guards inject and cause. It is never held while writing: a side whose writing is stuck must go on reading, or
	// both sides could wait for each other.
	mu sync.Mutex
	// inject is frames made here for our own yamux, delivered before the next record.
	inject []byte
	cause  error

	// wmu guards out and the carrier's write side.
	wmu sync.Mutex
	out frameWriter
}

func newRecordConn(w *wire, nonce [16]byte, host bool) *recordConn {
	r := &recordConn{w: w, nonce: nonce, check: frameChecker{peerIsHost: !host}, flow: newFlow(), tell: make(chan struct{}, 1)}
	copy(r.ownTag[:], nonce[:4])
	copy(r.peerTag[:], nonce[4:8])
	if !host {
		r.ownTag, r.peerTag = r.peerTag, r.ownTag
	}
	r.out.buf = make([]byte, recordHead, maxRecord)
	return r
}

// Read gives the payload of data records, which are checked whole before any of it is seen.
func (r *recordConn) Read(p []byte) (int, error) {
	for len(r.payload) == 0 {
		if r.used > 0 {
			r.w.discard(r.used)
			r.used = 0
		}
		if r.takeInjected() {
			break
		}
		if err := r.next(); err != nil {
			r.setCause(err)
			return 0, err
		}
	}
	n := copy(p, r.payload)
	r.payload = r.payload[n:]
	return n, nil
}

func (r *recordConn) takeInjected() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.inject) == 0 {
		return false
	}
	r.payload, r.inject = r.inject, nil
	return true
}

// next finds the next data record and sets payload and used.
func (r *recordConn) next() error {
	for {
		if err := r.w.need(recordHead); err != nil {
			return err
		}
		b := r.w.buffered()
		switch b[0] {
		case dataByte:
			return r.data(b)
		case magic[0]:
			if err := r.control(); err != nil {
				return err
			}
		case padByte:
			if r.check.peerIsHost {
				return ErrPeerRestarted
			}
			fallthrough
		default:
			return fmt.Errorf("%w: a record begins with byte %#x", errCorrupt, b[0])
		}
	}
}

func (r *recordConn) data(b []byte) error {
	n := int(b[1])<<16 | int(b[2])<<8 | int(b[3])
	if n > maxPayload {
		return fmt.Errorf("%w: a record of %d bytes", errCorrupt, n)
	}
	total := recordHead + n + recordTail
	if err := r.w.need(total); err != nil {
		return err
	}
	b = r.w.buffered()
	if [4]byte(b[recordHead+n:total]) != r.peerTag {
		r.w.discard(total)
		return fmt.Errorf("%w: a record has the wrong end", errCorrupt)
	}
	r.used = total
	if err := r.check.frames(b[recordHead : recordHead+n]); err != nil {
		return err
	}
	tell, ok := r.flow.arrived(n, binary.BigEndian.Uint32(b[4:]))
	if !ok {
		return fmt.Errorf("%w: a record confirms bytes that were never sent", errCorrupt)
	}
	if tell {
		select {
		case r.tell <- struct{}{}:
		default:
		}
	}
	r.payload = b[recordHead : recordHead+n]
	return nil
}

// acker tells the other side what has been received when no record of ours did so lately. Reading must not wait for the
// carrier's write side, so it runs in a goroutine of its own.
func (r *recordConn) acker(done <-chan struct{}) {
	for {
		select {
		case <-r.tell:
		case <-done:
			return
		}
		if err := r.confirm(); err != nil {
			return
		}
	}
}

func (r *recordConn) confirm() error {
	r.wmu.Lock()
	defer r.wmu.Unlock()
	if r.out.body > 0 {
		return nil // the record being put together will say it
	}
	return r.flush()
}

// control handles a control record inside a session: duplicates of our own are skipped, a HELLO of another host (or the
// padding before it) ends the session and stays in the buffer for the Acceptor.
func (r *recordConn) control() error {
	if err := r.w.need(controlSize); err != nil {
		return err
	}
	c, ok := parseControl(r.w.buffered())
	switch {
	case ok && c.nonce == r.nonce:
		r.w.discard(controlSize)
		return nil
	case ok && c.kind == kindHello && r.check.peerIsHost:
		return ErrPeerRestarted
	}
	return fmt.Errorf("%w: an unexpected control record", errCorrupt)
}

// Write takes what yamux writes: a frame header, then its body if it has one. Whole frames leave in one carrier write.
func (r *recordConn) Write(p []byte) (int, error) {
	r.wmu.Lock()
	defer r.wmu.Unlock()
	if r.out.add(p) {
		if err := r.flush(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// reset makes both sides forget a stream: the peer by a frame on the wire, our own yamux by an injected one. It may block
// as long as the carrier takes no bytes.
func (r *recordConn) reset(id uint32) error {
	frame := resetFrame(id)
	r.mu.Lock()
	r.inject = append(r.inject, frame...)
	r.mu.Unlock()
	r.wmu.Lock()
	defer r.wmu.Unlock()
	if r.out.insert(frame) {
		return r.flush()
	}
	return nil
}

// flush writes the gathered frames, first those of yamux, then our own. Callers hold wmu.
func (r *recordConn) flush() error {
	if err := r.writeRecord(); err != nil {
		r.setCause(err)
		return err
	}
	for len(r.out.late) > 0 {
		n := min(len(r.out.late), maxHeld)
		r.out.buf = append(r.out.buf, r.out.late[:n]...)
		r.out.late = r.out.late[n:]
		if err := r.writeRecord(); err != nil {
			r.setCause(err)
			return err
		}
	}
	return nil
}

func (r *recordConn) writeRecord() error {
	rec := r.out.buf
	n := len(rec) - recordHead
	if n > maxPayload {
		return fmt.Errorf("%w: %d bytes to send are more than a record holds", errCorrupt, n)
	}
	binary.BigEndian.PutUint32(rec, dataByte<<24|uint32(n)) //nolint:gosec // at most maxPayload
	binary.BigEndian.PutUint32(rec[4:], r.flow.sending(n))
	rec = append(rec, r.ownTag[:]...)
	r.out.buf = rec[:recordHead]
	if _, err := r.w.carrier.Write(rec); err != nil {
		return fmt.Errorf("write carrier: %w", err)
	}
	return nil
}

func (r *recordConn) setCause(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cause == nil {
		r.cause = err
	}
}

// why is the first thing that went wrong, nil when nothing did.
func (r *recordConn) why() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cause
}

// Close makes Read and Write return; the carrier itself stays.
func (r *recordConn) Close() error {
	r.w.interrupt()
	return nil
}

var _ io.ReadWriteCloser = (*recordConn)(nil)
