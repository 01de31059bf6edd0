package export

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
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

// Collector is where OTLP is sent to.
type Collector struct {
	to     *url.URL
	client *http.Client
}

// NewCollector makes one of an address that Endpoint gave. Nothing is sent yet.
func NewCollector(to *url.URL) *Collector {
	return &Collector{to: to, client: &http.Client{
		Timeout: sendTime, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, IdleConnTimeout: sendTime},
	}}
}

// Close ends its connections.
func (c *Collector) Close() { c.client.CloseIdleConnections() }

// Send sends lines of OTLP to a collector as they come: traces to /v1/traces and metrics to /v1/metrics below to. What fails for the moment is
// tried again.
func Send(ctx context.Context, lines io.Reader, to *url.URL) error {
	in := bufio.NewScanner(lines)
	in.Buffer(make([]byte, 64<<10), maxSendLine)
	c := NewCollector(to)
	defer c.Close()
	for in.Scan() {
		if err := c.sendLine(ctx, in.Bytes()); err != nil {
			return err
		}
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("read export: %w", err)
	}
	return nil
}

// sendLine sends one, more than once if need be.
func (c *Collector) sendLine(ctx context.Context, line []byte) error {
	pause := sendPause
	for try := 1; ; try++ {
		_, again, err := c.Post(ctx, line)
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

// Post sends one line, once. again says that it may be worth it to send it once more; rejected is how much of it the collector did not want.
func (c *Collector) Post(ctx context.Context, line []byte) (rejected int64, again bool, err error) {
	path := "traces"
	if bytes.HasPrefix(line, []byte(`{"resourceMetrics"`)) {
		path = "metrics"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.to.JoinPath("v1", path).String(), bytes.NewReader(line))
	if err != nil {
		return 0, false, fmt.Errorf("send to collector: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // its text has the address, and what may be in that
		}
		return 0, true, fault.Wrap(err, fault.Unavailable, "the collector does not answer: %s", err)
	}
	defer res.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10))
	if res.StatusCode/100 == 2 {
		return rejectedBy(said), false, nil
	}
	text := strings.ToValidUTF8(strings.Join(strings.Fields(string(said)), " "), "?")
	again = res.StatusCode == http.StatusTooManyRequests || res.StatusCode >= 500
	return 0, again, fault.New(fault.Unavailable, "the collector says %s: %.200s", res.Status, text)
}

// rejectedBy reads what a collector says of a request that it has taken in part.
func rejectedBy(said []byte) int64 {
	var r struct {
		Partial struct {
			Spans  json.Number `json:"rejectedSpans"`
			Points json.Number `json:"rejectedDataPoints"`
		} `json:"partialSuccess"`
	}
	if json.Unmarshal(said, &r) != nil {
		return 0
	}
	spans, _ := r.Partial.Spans.Int64()
	points, _ := r.Partial.Points.Int64()
	return max(0, spans, points)
}
