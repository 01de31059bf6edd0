package link

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// helloEvery and helloSlowest are how often HELLO is repeated at first and later.
	helloEvery, helloSlowest = 50 * time.Millisecond, 400 * time.Millisecond
	// maxStale is how many bytes that are no answer the host reads before it gives up: more than any queue on the way holds.
	maxStale = 16 << 20
)

// errNoHandshake is a guest that sends anything but an answer.
var errNoHandshake = errors.New("the guest sends data but never answers the greeting")

// greet is the host's half of the handshake.
func greet(ctx context.Context, w *wire) ([16]byte, error) {
	var nonce [16]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return nonce, fmt.Errorf("make nonce: %w", err)
	}
	acked, done := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { sendGreeting(w, nonce, acked, done) })
	stop := context.AfterFunc(ctx, w.interrupt)
	err := awaitControl(w, control{kindAck, nonce})
	if err == nil {
		close(acked)
		err = awaitControl(w, control{kindGo, nonce})
	}
	close(done)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		w.interrupt()
		wg.Wait()
		return nonce, fmt.Errorf("greet guest: %w", err)
	}
	wg.Wait()
	return nonce, nil
}

// sendGreeting writes HELLO until acked, then HELLO and START until done: the answer to a START may never come when the guest
// took stale bytes of another host for the newest. A guest whose session has begun skips repeats. It writes alone, so
// that reading never waits for it.
func sendGreeting(w *wire, nonce [16]byte, acked, done <-chan struct{}) {
	hello := control{kindHello, nonce}.encode()
	out := append(bytes.Repeat([]byte{padByte}, maxRecord), hello...)
	every := helloEvery
	for {
		if _, err := w.carrier.Write(out); err != nil {
			w.interrupt()
			return
		}
		select {
		case <-acked:
			out, acked = append(slices.Clip(hello), control{kindStart, nonce}.encode()...), nil
			continue
		case <-done:
			return
		case <-time.After(every):
			every = min(every*2, helloSlowest)
		}
		if acked != nil {
			out = hello
		}
	}
}

// awaitControl drops everything up to and with the control record wanted.
func awaitControl(w *wire, want control) error {
	for dropped := 0; dropped < maxStale; {
		c, used, found := scanControl(w.buffered())
		w.discard(used)
		dropped += used
		switch {
		case found && c == want:
			return nil
		case !found:
			if err := w.fill(); err != nil {
				return err
			}
		}
	}
	return errNoHandshake
}

// answer is the guest's half: it waits for a host, however long, follows the newest HELLO and returns its nonce after START.
func answer(ctx context.Context, w *wire) ([16]byte, error) {
	stop := context.AfterFunc(ctx, w.interrupt)
	nonce, err := followHello(w)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nonce, fmt.Errorf("answer host: %w", err)
	}
	return nonce, nil
}

func followHello(w *wire) ([16]byte, error) {
	var nonce [16]byte
	greeted, owed := false, false
	for {
		c, used, found := scanControl(w.buffered())
		w.discard(used)
		switch {
		case found && c.kind == kindHello:
			nonce, greeted, owed = c.nonce, true, true
		case found && c.kind == kindStart && greeted && c.nonce == nonce:
			return nonce, send(w, control{kindGo, nonce})
		case found:
		case owed: // everything that had come is looked at: one answer for any number of repeats
			if err := send(w, control{kindAck, nonce}); err != nil {
				return nonce, err
			}
			owed = false
		default:
			if err := w.fill(); err != nil {
				return nonce, err
			}
		}
	}
}

func send(w *wire, c control) error {
	if _, err := w.carrier.Write(c.encode()); err != nil {
		return fmt.Errorf("write carrier: %w", err)
	}
	return nil
}
