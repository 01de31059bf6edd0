package localapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/proto"
	"capsem/core/workerclient"
)

// requestTime is how long a client may take to send its request once the connection is switched over.
const requestTime = 10 * time.Second

func (s *Server) execStream(w http.ResponseWriter, r *http.Request) error {
	if r.Header.Get("Upgrade") == "" && strings.Contains(r.Header.Get("Accept"), ndjson) {
		return s.execLines(w, r)
	}
	if err := wantUpgrade(r, api.UpgradeStream); err != nil {
		return err
	}
	id := r.PathValue("id")
	if _, err := s.svc.Terminal(r.Context(), id); err != nil { // said as HTTP while that is possible
		return err //nolint:wrapcheck // a fault
	}
	client, err := switchOver(w, api.UpgradeStream)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	worker, err := s.startExec(ctx, id, client)
	if err != nil {
		sendError(client, err)
		return nil
	}
	s.attached.Add(1)
	defer s.attached.Add(-1)
	splice(ctx, client, worker, false)
	return nil
}

// startExec reads the request that comes first on the stream and has the worker run it.
func (s *Server) startExec(ctx context.Context, id string, client *switched) (net.Conn, error) {
	if err := client.SetReadDeadline(time.Now().Add(requestTime)); err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	text, err := readRequest(client)
	if err != nil {
		return nil, err
	}
	if err := client.SetReadDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("read request: %w", err)
	}
	var req api.ExecRequest
	if err := strict(text, &req); err != nil {
		return nil, malformed(err)
	}
	if req.StdinText != "" {
		return nil, fault.New(fault.Invalid, "stdin_text is for the buffered route").WithHint("send the input as frames")
	}
	ask, err := execRequest(req)
	if err != nil {
		return nil, err
	}
	return s.svc.Stream(ctx, id, ask) //nolint:wrapcheck // a fault
}

// readRequest reads the JSON that opens a stream: Data frames, the first one that is not full being the last.
func readRequest(r io.Reader) ([]byte, error) {
	frames := proto.NewStreamReader(r)
	var text []byte
	for {
		kind, data, err := frames.Next()
		if err != nil {
			return nil, fault.Wrap(err, fault.Invalid, "the stream does not begin with a request")
		}
		if kind != proto.KindData {
			return nil, fault.New(fault.Invalid, "the stream begins with a frame of kind %d, not with a request", kind)
		}
		if len(text)+len(data) > api.MaxBody {
			return nil, fault.New(fault.TooLarge, "the request is larger than %d bytes", api.MaxBody).WithHint("send large content through stdin")
		}
		text = append(text, data...)
		if len(data) < proto.MaxChunk {
			return text, nil
		}
	}
}

func strict(text []byte, v any) error {
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err //nolint:wrapcheck // malformed does
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the value")
	}
	return nil
}

// sendError ends a stream with an error frame.
func sendError(w io.Writer, err error) {
	code, message, hint := fault.Public(err)
	data, err := json.Marshal(proto.StreamError{Code: string(code), Message: message, Hint: hint})
	if err != nil {
		return // text always can be encoded
	}
	_ = proto.WriteStreamFrame(w, proto.KindError, data[:min(len(data), proto.MaxChunk)]) // a client that left needs no answer
}

func (s *Server) forward(w http.ResponseWriter, r *http.Request) error {
	if err := wantUpgrade(r, api.UpgradeForward); err != nil {
		return err
	}
	port, err := number(r, "port", 1, 65535)
	if err != nil {
		return err
	}
	if port == 0 {
		return fault.New(fault.Invalid, "the port is missing").WithHint("give ?port=N")
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	worker, err := s.svc.Stream(ctx, r.PathValue("id"), proto.WorkerRequest{Op: proto.OpForward, ForwardPort: uint16(port)}) //nolint:gosec // bounded above
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	client, err := switchOver(w, api.UpgradeForward)
	if err != nil {
		return errors.Join(err, worker.Close())
	}
	defer client.Close()
	s.attached.Add(1)
	defer s.attached.Add(-1)
	splice(ctx, client, worker, true)
	return nil
}

func wantUpgrade(r *http.Request, protocol string) error {
	if r.Header.Get("Upgrade") == protocol && strings.EqualFold(r.Header.Get("Connection"), "upgrade") {
		return nil
	}
	return fault.New(fault.Invalid, "this route needs the headers Connection: Upgrade and Upgrade: %s", protocol).WithHint("see /openapi.json")
}

// switched is a connection that was taken over from HTTP, with what was read ahead.
type switched struct {
	net.Conn
	r io.Reader
}

// Read reads what came after the request.
func (c *switched) Read(p []byte) (int, error) { return c.r.Read(p) } //nolint:wrapcheck // a net.Conn hands errors through

func switchOver(w http.ResponseWriter, protocol string) (*switched, error) {
	if t, ok := w.(*tracked); ok {
		t.status = http.StatusSwitchingProtocols
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("take over connection: %w", err)
	}
	if b, ok := conn.(*boundedConn); ok {
		b.release()
	}
	err = conn.SetDeadline(time.Time{})
	if err == nil {
		_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n%s: %s\r\n\r\n",
			protocol, api.VersionHeader, w.Header().Get(api.VersionHeader))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take over connection: %w", err), conn.Close())
	}
	// Past what was read ahead, the connection itself: net/http's reader would take the end of the client's direction for the end
	// of the request and cancel its context.
	ahead := io.LimitReader(rw.Reader, int64(rw.Reader.Buffered()))
	return &switched{Conn: conn, r: io.MultiReader(ahead, conn)}, nil
}

// execLines runs a command as a stream of JSON lines.
func (s *Server) execLines(w http.ResponseWriter, r *http.Request) error {
	var req api.ExecRequest
	if err := decode(w, r, api.MaxBody, &req); err != nil {
		return err
	}
	if req.Stdin {
		return fault.New(fault.Invalid, "input that is still to come needs the upgraded stream").WithHint("use stdin_text for input that is known")
	}
	ask, err := execRequest(req)
	if err != nil {
		return err
	}
	conn, err := s.svc.Stream(r.Context(), r.PathValue("id"), ask)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	defer conn.Close()
	stop := context.AfterFunc(r.Context(), func() { _ = conn.Close() })
	defer stop()
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		feed(conn, req.StdinText)
	}()
	w.Header().Set("Content-Type", ndjson)
	err = lines(w, conn)
	_ = conn.Close() // wakes feed
	<-fed
	return err
}

// lines writes the frames of a command as JSON lines, each at once.
func lines(w http.ResponseWriter, conn io.Reader) error {
	frames, out, flush := proto.NewStreamReader(conn), json.NewEncoder(w), http.NewResponseController(w).Flush
	for {
		line, last := nextLine(frames)
		if err := out.Encode(line); err != nil {
			return fmt.Errorf("write line: %w", err)
		}
		if err := flush(); err != nil {
			return fmt.Errorf("write line: %w", err)
		}
		if last {
			return nil
		}
	}
}

// nextLine turns the next frame into a line. Whatever is wrong becomes the last line.
func nextLine(frames *proto.StreamReader) (line api.StreamLine, last bool) {
	kind, data, err := frames.Next()
	if err == nil {
		switch kind {
		case proto.KindStarted:
			err = json.Unmarshal(data, &line.Started)
		case proto.KindStdout:
			line.Stdout = data
		case proto.KindStderr:
			line.Stderr = data
		case proto.KindExit:
			err, last = json.Unmarshal(data, &line.Exit), true
		case proto.KindError:
			err, last = json.Unmarshal(data, &line.Error), true
			if err == nil && line.Error != nil {
				bounded := workerclient.Fault(line.Error)
				line.Error = &proto.StreamError{Code: string(bounded.Code), Message: bounded.Message, Hint: bounded.Hint}
			}
		default:
			err = fmt.Errorf("frame of kind %d", kind)
		}
	}
	if err == nil {
		return line, last
	}
	code, message, hint := fault.Public(lost(err))
	return api.StreamLine{Error: &proto.StreamError{Code: string(code), Message: message, Hint: hint}}, true
}
