package qemu

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
	"golang.org/x/sys/unix"
)

const (
	// maxLine bounds one line of QMP: QEMU is in the hands of whoever broke out of a guest.
	maxLine = 1 << 20
	// replyTime bounds one command. All of ours are answered at once by a QEMU that is well.
	replyTime = 20 * time.Second
)

// monitor is go-qemu's qmp.Monitor over a connection that exists already. go-qemu's own SocketMonitor can only dial or
// listen on a path, hands out a buffer that the next line overwrites, and waits for ever.
type monitor struct {
	conn   net.Conn
	events chan qmp.Event

	run     sync.Mutex
	replies chan reply
	done    chan struct{}
}

var _ qmp.Monitor = (*monitor)(nil)

type reply struct {
	line []byte
	err  error
}

// message is any line that QEMU sends.
type message struct {
	Event  string          `json:"event"`
	QMP    json.RawMessage `json:"QMP"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Desc string `json:"desc"`
	} `json:"error"`
}

func newMonitor(conn net.Conn) *monitor {
	return &monitor{conn: conn, events: make(chan qmp.Event, 16), replies: make(chan reply, 1), done: make(chan struct{})}
}

// Connect reads the greeting and leaves the negotiation mode. It starts the reader, which ends with the connection.
func (m *monitor) Connect() error {
	r, err := m.greet()
	if err != nil {
		close(m.events)
		close(m.done)
		return err
	}
	go m.read(r)
	_, err = m.Run([]byte(`{"execute":"qmp_capabilities"}`))
	return err
}

func (m *monitor) greet() (*bufio.Reader, error) {
	if err := m.conn.SetReadDeadline(time.Now().Add(replyTime)); err != nil {
		return nil, fmt.Errorf("connect to QEMU: %w", err)
	}
	r := bufio.NewReaderSize(m.conn, 4096)
	line, err := readLine(r)
	if err != nil {
		return nil, fmt.Errorf("connect to QEMU: %w", err)
	}
	var greeting message
	if err := json.Unmarshal(line, &greeting); err != nil || greeting.QMP == nil {
		return nil, fmt.Errorf("connect to QEMU: unexpected greeting %.80q", line)
	}
	if err := m.conn.SetReadDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("connect to QEMU: %w", err)
	}
	return r, nil
}

// Disconnect closes the connection and waits for the reader.
func (m *monitor) Disconnect() error {
	err := m.conn.Close()
	<-m.done
	if err != nil {
		return fmt.Errorf("disconnect from QEMU: %w", err)
	}
	return nil
}

// Events returns the events. Up to 16 wait; further ones are dropped, and none of ours comes in such numbers.
func (m *monitor) Events(context.Context) (<-chan qmp.Event, error) { return m.events, nil }

// Run sends one command and returns QEMU's answer.
func (m *monitor) Run(command []byte) ([]byte, error) { return m.runWith(command, nil) }

// runWith is Run with a file passed along.
func (m *monitor) runWith(command []byte, f *os.File) ([]byte, error) {
	m.run.Lock()
	defer m.run.Unlock()
	timer := time.NewTimer(replyTime)
	defer timer.Stop()
	if err := m.conn.SetWriteDeadline(time.Now().Add(replyTime)); err != nil {
		return nil, fmt.Errorf("ask QEMU: %w", err)
	}
	if err := m.send(append(bytes.TrimSpace(command), '\n'), f); err != nil {
		return nil, fmt.Errorf("ask QEMU: %w", err)
	}
	select {
	case r := <-m.replies:
		return r.line, r.err
	case <-m.done:
		return nil, errors.New("ask QEMU: it is gone")
	case <-timer.C:
		_ = m.conn.Close()
		return nil, errors.New("ask QEMU: no answer")
	}
}

func (m *monitor) send(line []byte, f *os.File) error {
	if f == nil {
		_, err := m.conn.Write(line)
		return err //nolint:wrapcheck // by the caller
	}
	conn, ok := m.conn.(*net.UnixConn)
	if !ok {
		return errors.New("this connection passes no files")
	}
	_, _, err := conn.WriteMsgUnix(line, unix.UnixRights(int(f.Fd())), nil)
	return err //nolint:wrapcheck // by the caller
}

// read sorts lines into answers and events until the connection ends.
func (m *monitor) read(r *bufio.Reader) {
	defer close(m.done)
	defer close(m.events)
	for {
		line, err := readLine(r)
		if err != nil {
			return
		}
		var msg message
		if json.Unmarshal(line, &msg) != nil {
			continue
		}
		switch {
		case msg.Event != "":
			var e qmp.Event
			if json.Unmarshal(line, &e) == nil {
				select {
				case m.events <- e:
				default:
				}
			}
		case msg.Error != nil:
			m.answer(reply{err: fmt.Errorf("ask QEMU: %.500s", msg.Error.Desc)})
		case msg.Return != nil:
			m.answer(reply{line: line})
		}
	}
}

// answer hands an answer to whoever waits; one that nobody has asked for is dropped.
func (m *monitor) answer(r reply) {
	select {
	case m.replies <- r:
	default:
	}
}

// readLine reads one line of at most maxLine bytes, in memory of its own.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxLine:
			return nil, errors.New("read from QEMU: line too long")
		case err == nil:
			return line, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			if errors.Is(err, io.EOF) {
				return nil, io.EOF
			}
			return nil, fmt.Errorf("read from QEMU: %w", err)
		}
	}
}
