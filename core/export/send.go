package export

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"capsem/core/fault"
)

const (
	// maxSendLine bounds one line that is sent.
	maxSendLine = 32 << 20
	// sendTime bounds one request, sendTries how often it is tried, sendPause the first wait between.
	sendTime  = 30 * time.Second
	sendTries = 5
	sendPause = 500 * time.Millisecond
)

// Endpoint checks the address of a collector, such as http://localhost:4318.
func Endpoint(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fault.New(fault.Invalid, "%.200q is no address of a collector, such as http://localhost:4318", text)
	}
	return u, nil
}

// Send sends lines of OTLP to a collector as they come: traces to /v1/traces and metrics to /v1/metrics below to. What fails for the moment is
// tried again.
func Send(ctx context.Context, lines io.Reader, to *url.URL) error {
	in := bufio.NewScanner(lines)
	in.Buffer(make([]byte, 64<<10), maxSendLine)
	client := &http.Client{Timeout: sendTime, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	for in.Scan() {
		path := "traces"
		if bytes.HasPrefix(in.Bytes(), []byte(`{"resourceMetrics"`)) {
			path = "metrics"
		}
		if err := sendLine(ctx, client, to.JoinPath("v1", path).String(), in.Bytes()); err != nil {
			return err
		}
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("read export: %w", err)
	}
	return nil
}

// sendLine sends one, more than once if need be.
func sendLine(ctx context.Context, client *http.Client, to string, line []byte) error {
	pause := sendPause
	for try := 1; ; try++ {
		again, err := post(ctx, client, to, line)
		if err == nil || !again || try == sendTries || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(pause):
			pause *= 2
		case <-ctx.Done():
			return err
		}
	}
}

func post(ctx context.Context, client *http.Client, to string, line []byte) (again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(line))
	if err != nil {
		return false, fmt.Errorf("send to collector: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // its text has the address, and what may be in that
		}
		return true, fault.Wrap(err, fault.Unavailable, "the collector does not answer: %s", err)
	}
	defer res.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10))
	if res.StatusCode/100 == 2 {
		return false, nil
	}
	text := strings.ToValidUTF8(strings.Join(strings.Fields(string(said)), " "), "?")
	again = res.StatusCode == http.StatusTooManyRequests || res.StatusCode >= 500
	return again, fault.New(fault.Unavailable, "the collector says %s: %.200s", res.Status, text)
}
