package mitm

import (
	"bytes"
	"encoding/binary"
	"io"
	"time"
)

const (
	// sshIdentification is how a client of SSH begins, and a server answers.
	sshIdentification = "SSH-2.0-"
	// sshDisconnect is the message that ends a connection, sshByApplication its reason.
	sshDisconnect    = 1
	sshByApplication = 11
	// sshTime is how long a client may take to read why.
	sshTime = 2 * time.Second
)

// tellSSH answers a client of SSH that no rule lets through: it is told why in the words that it prints, before any keys are agreed on.
func (c *conn) tellSSH(rule string) bool {
	if !bytes.HasPrefix(c.in.ahead(), []byte(sshIdentification)) {
		return false
	}
	why := "capsem: SSH to " + c.host + " is not open (" + rule + "). For git use HTTPS: git config --global url.https://" + c.host +
		"/.insteadOf git@" + c.host + ": ; the owner can open SSH with a rule that has schemes = [\"tcp\"] and ports."
	answer := append([]byte(sshIdentification+"capsem\r\n"), sshPacket(sshDisconnectMessage(why))...)
	_ = c.in.SetDeadline(time.Now().Add(sshTime))
	if _, err := c.in.Conn.Write(answer); err == nil {
		if closeWrite(c.in.Conn) == nil {
			_, _ = io.Copy(io.Discard, io.LimitReader(c.in.Conn, maxPeek)) // a reset could overtake what was written
		}
	}
	return true
}

func sshDisconnectMessage(why string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{sshDisconnect}, sshByApplication)
	b = append(binary.BigEndian.AppendUint32(b, uint32(len(why))), why...) //nolint:gosec // a host's name and a rule's
	return binary.BigEndian.AppendUint32(b, 0)                             // no language
}

// sshPacket puts a message into a packet as they are before encryption: of a length that is a multiple of eight, with at least four bytes
// of padding.
func sshPacket(payload []byte) []byte {
	padding := 8 - (5+len(payload))%8
	if padding < 4 {
		padding += 8
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)+padding)) //nolint:gosec // short
	b = append(append(b, byte(padding)), payload...)
	return append(b, make([]byte, padding)...)
}
