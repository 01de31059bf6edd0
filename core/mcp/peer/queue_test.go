package peer

import (
	"context"
	"errors"
	"sync"
	"testing"
)

func TestCallsThatAreTooMuchTogetherAreRefused(t *testing.T) {
	const size, fit = 15 << 20, maxServingBytes / (15 << 20)
	release := make(chan struct{})
	p, _ := pair(t, side{call: echo}, side{call: func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil, nil
	}})
	var all sync.WaitGroup
	errs := make(chan error, fit+1)
	for range fit + 1 {
		all.Go(func() {
			_, err := p.Call(t.Context(), "m", make([]byte, size))
			errs <- err
		})
	}
	if e, ok := errors.AsType[*Error](<-errs); !ok || e.Code != CodeBusy { // the others wait
		t.Errorf("the first to end is %v", e)
	}
	close(release)
	all.Wait()
	for range fit {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestNotesThatWaitAreBounded(t *testing.T) {
	q := newQueue()
	large := &frame{Body: make([]byte, maxNoteBytes)}
	q.put(large) // one always fits
	put := make(chan struct{})
	go func() { q.put(&frame{ID: 2, Body: []byte("x")}); close(put) }()
	select {
	case <-put:
		t.Error("there was room for more than there may be")
	default:
	}
	if q.take() != large {
		t.Error("they are out of order")
	}
	<-put
	if f := q.take(); f == nil || f.ID != 2 {
		t.Error("they are out of order")
	}
	for range maxNotes {
		q.put(&frame{})
	}
	put = make(chan struct{})
	go func() { q.put(&frame{}); close(put) }()
	q.stop() // whoever waits for room goes on
	<-put
	q.end()
	n := 0
	for q.take() != nil {
		n++
	}
	if n != maxNotes {
		t.Errorf("%d came out", n)
	}
}
