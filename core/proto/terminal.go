package proto

import "fmt"

// TerminalOpen opens a stream on PortTerminal: one CBOR frame after the stream header, then stream frames: Stdin and
// Resize towards the guest; Stdout (the replay of up to 64 KiB first, then live) and one Exit from it.
// Closing the stream detaches the viewer; the session's shell goes on until it exits.
type TerminalOpen struct {
	// Session names the PTY session; one is started when none of that name runs. Empty means "main".
	Session string `cbor:"session,omitempty"`
	// Size is the viewer's window.
	Size WindowSize `cbor:"size"`
	// Term is the TERM of a session that is started; empty means xterm-256color.
	Term string `cbor:"term,omitempty"`
	// Env adds to the environment of a session that is started.
	Env map[string]string `cbor:"env,omitempty"`
	// Peek asks for the replay alone: no session is started, none changes its size, and the viewer may not type. Without a session
	// the stream ends at once.
	Peek bool `cbor:"peek,omitempty"`
}

// Validate bounds every field.
func (t *TerminalOpen) Validate() error {
	if t.Session != "" && !isShortName(t.Session) {
		return fmt.Errorf("terminal session name %.70q is malformed", t.Session)
	}
	if t.Term != "" && !isShortName(t.Term) {
		return fmt.Errorf("TERM %.70q is malformed", t.Term)
	}
	if err := t.Size.Validate(); err != nil {
		return err
	}
	return ValidateEnv(t.Env)
}
