// Command guestmcp runs in a guest and measures echoes: "guestmcp mcp CALLS INFLIGHT" of the tool local__echo through capsem-mcp-server,
// "guestmcp raw CALLS INFLIGHT HEADER" of lines that whoever serves a stream of the link sends back as they are; HEADER begins the stream, in hex.
// It prints the rate, the median and the 99th percentile as JSON.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"time"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "guestmcp:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) < 3 {
		return errors.New("too few words")
	}
	calls, err := strconv.Atoi(args[1])
	if err != nil {
		return fmt.Errorf("calls: %w", err)
	}
	inFlight, err := strconv.Atoi(args[2])
	if err != nil {
		return fmt.Errorf("in flight: %w", err)
	}
	from, to, err := begin(ctx, args)
	if err != nil {
		return err
	}
	in := bufio.NewReaderSize(from, 64<<10)
	if args[0] == "mcp" {
		hello := `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}` +
			"\n" + `{"jsonrpc":"2.0","method":"notifications/initialized"}` + "\n"
		if _, err := io.WriteString(to, hello); err != nil {
			return fmt.Errorf("greet: %w", err)
		}
		if _, err := answer(in); err != nil {
			return err
		}
	}
	if _, _, err := measure(in, to, calls/4, inFlight, 1); err != nil { // what is done once is not counted
		return err
	}
	times, took, err := measure(in, to, calls, inFlight, calls)
	if err != nil {
		return err
	}
	slices.Sort(times)
	text, err := json.Marshal(map[string]float64{
		"rate": float64(calls) / took.Seconds(), "p50": ms(times[len(times)/2]), "p99": ms(times[len(times)*99/100]),
	})
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	fmt.Println(string(text))
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// begin opens the two streams.
func begin(ctx context.Context, args []string) (from io.Reader, to io.Writer, err error) {
	if args[0] == "mcp" {
		cmd := exec.CommandContext(ctx, "capsem-mcp-server")
		cmd.Stderr = os.Stderr
		if to, err = cmd.StdinPipe(); err == nil {
			from, err = cmd.StdoutPipe()
		}
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			return nil, nil, fmt.Errorf("start the relay: %w", err)
		}
		return from, to, nil
	}
	if len(args) < 4 {
		return nil, nil, errors.New("no header")
	}
	header, err := hex.DecodeString(args[3])
	if err != nil {
		return nil, nil, fmt.Errorf("header: %w", err)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", "/run/capsem/link.sock")
	if err == nil {
		_, err = conn.Write(header)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open a stream: %w", err)
	}
	return conn, conn, nil
}

// measure makes calls, so many at once, whose ids begin at first.
func measure(in *bufio.Reader, to io.Writer, calls, inFlight, first int) ([]time.Duration, time.Duration, error) {
	began, times := make([]time.Time, calls), make([]time.Duration, 0, calls)
	start, sent := time.Now(), 0
	send := func() error {
		if sent == calls {
			return nil
		}
		began[sent] = time.Now()
		_, err := fmt.Fprintf(to, "{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"tools/call\",\"params\":{\"name\":\"local__echo\",\"arguments\":{\"text\":\"hello\"}}}\n", first+sent)
		sent++
		return err
	}
	for range inFlight {
		if err := send(); err != nil {
			return nil, 0, fmt.Errorf("send: %w", err)
		}
	}
	for len(times) < calls {
		id, err := answer(in)
		if err != nil {
			return nil, 0, err
		}
		if id -= first; id < 0 || id >= calls {
			return nil, 0, fmt.Errorf("an answer to %d", id+first)
		}
		times = append(times, time.Since(began[id]))
		if err := send(); err != nil {
			return nil, 0, fmt.Errorf("send: %w", err)
		}
	}
	return times, time.Since(start), nil
}

// answer reads the next answer, and gives its id.
func answer(in *bufio.Reader) (int, error) {
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return 0, fmt.Errorf("read: %w", err)
		}
		if bytes.Contains(line, []byte(`"error"`)) {
			return 0, fmt.Errorf("refused: %s", line)
		}
		_, after, ok := bytes.Cut(line, []byte(`"id":`))
		if !ok {
			continue // a notification
		}
		digits := after[:max(bytes.IndexFunc(after, func(r rune) bool { return r < '0' || r > '9' }), 0)]
		id, err := strconv.Atoi(string(digits))
		if err != nil {
			return 0, fmt.Errorf("an answer without an id: %s", line)
		}
		return id, nil
	}
}
