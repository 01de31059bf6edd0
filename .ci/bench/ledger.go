package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"capsem/core/ledger"
)

// ledgerEvents measures how many requests the ledger takes: indexed, chained, signed and written.
func (b *bench) ledgerEvents(ctx context.Context) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	const many, recorders = 120_000, 8
	var rates []float64
	for range rounds {
		dir, err := os.MkdirTemp(b.tmp, "ledger-")
		if err != nil {
			return fmt.Errorf("make a directory: %w", err)
		}
		w, err := ledger.Open(ctx, filepath.Join(dir, ledger.DBFile), ledger.Options{
			Session: "bench", Key: key, Log: slog.New(slog.DiscardHandler), Patience: time.Minute,
		})
		if err != nil {
			return fmt.Errorf("open the ledger: %w", err)
		}
		began := time.Now()
		var recording sync.WaitGroup
		for r := range recorders {
			recording.Go(func() {
				for n := range many / recorders {
					w.Record(ledgerEvent(r*many + n))
				}
			})
		}
		recording.Wait()
		err = w.Flush(ctx)
		rates = append(rates, many/time.Since(began).Seconds())
		if err = errors.Join(err, w.Close(ctx)); err != nil {
			return fmt.Errorf("write the ledger: %w", err)
		}
		if c := w.Counters(); c.Lost > 0 || c.Written != many {
			return fmt.Errorf("the ledger has %d rows of %d and lost %d", c.Written, many, c.Lost)
		}
	}
	b.add(newRow("ledger", "events/s", rates).held(AtLeast, 60_000).
		noted("core/ledger in this process: %d requests of %d recorders into a new file, until all are in it.", many, recorders))
	return nil
}

// ledgerEvent is an ordinary request, to one of many hosts.
func ledgerEvent(n int) ledger.NetEvent {
	return ledger.NetEvent{
		Domain: fmt.Sprintf("api%d.example.com", n*7919%500), Port: 443, Decision: "allowed", Rule: "preset:web", Process: ledger.Process{Name: "node", PID: 812},
		Method: "POST", Path: fmt.Sprintf("/v1/things/%d", n), Status: 200, Sent: 812, Received: 40960, Duration: 12 * time.Millisecond, Type: "https",
		Remote: "192.0.2.7:443",
	}
}
