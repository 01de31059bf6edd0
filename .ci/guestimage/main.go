// Command guestimage makes the images that the tests boot, unless they are in the cache already.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"time"

	"capsem/core/assets/assetstest"
	"capsem/core/assets/build"
	"capsem/core/fault"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "guestimage:", fault.Line(err))
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	for _, profile := range []string{assetstest.Minimal, assetstest.Dev} {
		start, last := time.Now(), time.Time{}
		set, err := assetstest.Prepare(ctx, profile, func(s build.Step) {
			if s.Warning || time.Since(last) > 5*time.Second {
				last = time.Now()
				fmt.Printf("[%3.0fs] %s: %s %s\n", time.Since(start).Seconds(), profile, s.Name, s.Detail)
			}
		})
		if err != nil {
			return err //nolint:wrapcheck // says what it did
		}
		fmt.Println(set.Dir())
	}
	return nil
}
