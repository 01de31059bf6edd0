// Package proto is every frame that crosses a trust boundary: host and guest over the link, service and worker over a
// unix socket, and the byte frames of a command's streams. It imports no transport; it validates what it decodes.
package proto

import (
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// Version is the protocol between host and guest agent and between service and worker. Both sides say theirs first and
// refuse another major number with a clear text.
const Version = 1

// Port addresses a service at the other end of the link (design D2). 5000-5005 are the seed's.
type Port uint32

// The ports. "host opens" and "guest opens" say who starts a stream.
const (
	// PortControl is the control channel: handshake, clock, shutdown. Host opens, one stream per link session.
	PortControl Port = 5000
	// PortTerminal is a view of a PTY session. Host opens, one stream per viewer.
	PortTerminal Port = 5001
	// PortNetwork is outbound TCP. Guest opens. (Network issue.)
	PortNetwork Port = 5002
	// PortMCP is MCP for agents in the guest. Guest opens. (MCP issue.)
	PortMCP Port = 5003
	// PortLifecycle is shutdown, reboot, suspend asked for from inside. Guest opens, one stream per request.
	PortLifecycle Port = 5004
	// PortExec is one command. Host opens.
	PortExec Port = 5005
	// PortAudit is programs that were started, as frames of AuditBatch. Guest opens.
	PortAudit Port = 5006
	// PortDNS is name lookups. Guest opens. (Network issue.)
	PortDNS Port = 5007
	// PortFiles is the FUSE messages of one shared directory (core/share). Guest opens; StreamHeader.Dest is the tag.
	PortFiles Port = 5008
	// PortAgentFiles is one file operation by the agent. Host opens.
	PortAgentFiles Port = 5009
	// PortSnapshots is the guest's snapshots tool. Guest opens. (Workspace issue.)
	PortSnapshots Port = 5010
	// PortForward is one TCP connection to a loopback port of the guest. Host opens; StreamHeader.Dest says where to.
	PortForward Port = 5011
)

// SerialPortName is the name of the virtio-serial port that carries the link where there is no AF_VSOCK. Over AF_VSOCK the
// guest listens on PortControl, and the host dials it.
const SerialPortName = "capsem.link"

// Known reports whether p is one of the ports above.
func (p Port) Known() bool { return p >= PortControl && p <= PortForward }

// String returns the port as a number.
func (p Port) String() string { return strconv.FormatUint(uint64(p), 10) }

// StreamHeader opens every stream of the link: a CBOR frame of at most MaxHeader bytes.
type StreamHeader struct {
	// Port is the service wanted.
	Port Port `cbor:"port"`
	// Process is what the guest claims about the process behind the stream; informational.
	Process string `cbor:"process,omitempty"`
	// Dest is the original destination ("address:port") of a redirected or forwarded connection, or the tag of a shared directory.
	Dest string `cbor:"dest,omitempty"`
}

// Validate bounds every field.
func (h StreamHeader) Validate() error {
	if !h.Port.Known() {
		return fmt.Errorf("stream header: unknown port %d", h.Port)
	}
	if len(h.Process) > 128 || len(h.Dest) > 300 {
		return errors.New("stream header: field too long")
	}
	if !utf8.ValidString(h.Process) || !utf8.ValidString(h.Dest) {
		return errors.New("stream header: a field is not UTF-8 text")
	}
	return nil
}
