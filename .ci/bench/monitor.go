package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"strings"
)

// monitor is a plain conversation with QEMU (QMP).
type monitor struct {
	conn net.Conn
	r    *bufio.Reader
}

func newMonitor(conn net.Conn) *monitor { return &monitor{conn, bufio.NewReader(conn)} }

// ask sends one command and returns the line with its answer.
func (m *monitor) ask(line string) (string, error) {
	if _, err := m.conn.Write([]byte(line + "\n")); err != nil {
		return "", fmt.Errorf("ask QEMU: %w", err)
	}
	for {
		answer, err := m.r.ReadString('\n')
		if err != nil {
			return "", fmt.Errorf("ask QEMU: %w", err)
		}
		if strings.Contains(answer, `"error"`) {
			return "", fmt.Errorf("QEMU says %s", answer)
		}
		if strings.Contains(answer, `"return"`) {
			return answer, nil
		}
	}
}

// until asks for a status until it is the one that is waited for; bad is the one of a failure.
func (m *monitor) until(query, want, bad string) error {
	for {
		answer, err := m.ask(`{"execute":"` + query + `"}`)
		if err != nil {
			return err
		}
		var st struct{ Return struct{ Status string } }
		if err := json.Unmarshal([]byte(answer), &st); err != nil {
			return fmt.Errorf("ask QEMU: %w", err)
		}
		switch st.Return.Status {
		case want:
			return nil
		case bad:
			return fmt.Errorf("QEMU says %s", answer)
		}
	}
}
