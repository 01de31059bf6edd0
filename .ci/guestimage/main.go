// Command guestimage makes the image that the tests boot, unless it is in the cache already.
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	start, last := time.Now(), time.Time{}
	set, err := assetstest.Prepare(ctx, func(s build.Step) {
		if s.Warning || time.Since(last) > 5*time.Second {
			last = time.Now()
			fmt.Printf("[%3.0fs] %s %s\n", time.Since(start).Seconds(), s.Name, s.Detail)
		}
	})
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "guestimage:", fault.Line(err))
		os.Exit(1)
	}
	fmt.Println(set.Dir())
}
