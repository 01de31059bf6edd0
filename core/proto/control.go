package proto

import (
	"fmt"
	"io"

	"github.com/fxamacker/cbor/v2"
)

// HostMessage is what the host may send on PortControl; GuestMessage what the guest may. The two sets are disjoint types,
// so neither side can be made to decode what only the other may say.
type HostMessage interface{ hostType() string }

// GuestMessage is what the guest may send on PortControl.
type GuestMessage interface{ guestType() string }

// Host to guest. Order at boot and after each new link session: the guest sends Ready, the host BootConfig, any number of
// FileWrite, BootConfigDone; the guest then BootReady and BootTiming.
type (
	// BootConfig is what makes this VM itself.
	BootConfig struct {
		// ID and Name become CAPSEM_VM_ID and CAPSEM_VM_NAME; Hostname the host name.
		ID       string `cbor:"id"`
		Name     string `cbor:"name,omitempty"`
		Hostname string `cbor:"hostname"`
		// EpochNS is the host's clock, in nanoseconds since 1970.
		EpochNS int64 `cbor:"epoch_ns"`
		// Timezone is an IANA name; empty means UTC.
		Timezone string `cbor:"timezone,omitempty"`
		// MachineID is 32 hex digits for /etc/machine-id.
		MachineID string `cbor:"machine_id"`
		// Entropy is at least 32 bytes of host randomness, credited to the guest's pool.
		Entropy []byte `cbor:"entropy"`
		// Env is the environment of every command in this VM.
		Env map[string]string `cbor:"env,omitempty"`
		// Shares are the directories of the host that the guest mounts before it is ready.
		Shares []Share `cbor:"shares,omitempty"`
		// CA is the certificate (PEM) of the install's authority, which the guest is to trust; empty: none.
		CA []byte `cbor:"ca,omitempty"`
	}
	// Share is one shared directory; its FUSE messages go over PortFiles, with the tag as the stream's Dest.
	Share struct {
		Tag string `cbor:"tag" json:"tag"`
		// Dir is where the guest mounts it: absolute and clean.
		Dir string `cbor:"dir" json:"dir"`
		// ReadOnly is held by the host in any case.
		ReadOnly bool `cbor:"read_only,omitempty" json:"read_only,omitempty"`
		// Furnish says that it is empty: the guest copies into it what it has at Dir.
		Furnish bool `cbor:"furnish,omitempty" json:"-"`
	}
	// FileWrite places one small file before the first command.
	FileWrite struct {
		// Path is absolute; Mode its permission bits.
		Path string `cbor:"path"`
		Mode uint32 `cbor:"mode"`
		Data []byte `cbor:"data"`
	}
	// BootConfigDone ends the configuration.
	BootConfigDone struct{}
	// Ping asks for a Pong and carries the host's clock, which the guest adopts when it is off by more than a second.
	Ping struct {
		// Seq returns in the Pong; EpochNS is the host's clock.
		Seq     uint64 `cbor:"seq"`
		EpochNS int64  `cbor:"epoch_ns"`
	}
	// Shutdown asks for an orderly power-off: TERM to all, GraceMS later KILL, sync, power off.
	Shutdown struct {
		// GraceMS is 0-60000.
		GraceMS uint32 `cbor:"grace_ms"`
		// Reboot starts again instead of powering off.
		Reboot bool `cbor:"reboot,omitempty"`
	}
)

// Guest to host.
type (
	// Ready opens the handshake.
	Ready struct {
		// Protocol is proto.Version of the agent; Agent its build version; BootID the kernel's.
		Protocol int    `cbor:"protocol"`
		Agent    string `cbor:"agent"`
		BootID   string `cbor:"boot_id"`
		// Restored says that processes of an earlier link session still run.
		Restored bool `cbor:"restored,omitempty"`
	}
	// BootReady says that commands may be sent. Failed lists boot steps that went wrong without being fatal.
	BootReady struct {
		Failed []string `cbor:"failed,omitempty"`
	}
	// BootTiming lists the stages of the boot.
	BootTiming struct {
		Stages []BootStage `cbor:"stages"`
	}
	// Pong answers Ping.
	Pong struct {
		Seq uint64 `cbor:"seq"`
	}
)

// BootStage is one timed step of the guest's boot.
type BootStage struct {
	// Name is [A-Za-z0-9_]{1,64}.
	Name string `cbor:"name" json:"name"`
	// DurationUS is its length in microseconds, at most 600 s.
	DurationUS int64 `cbor:"duration_us" json:"duration_us"`
}

func (BootConfig) hostType() string     { return "boot_config" }
func (FileWrite) hostType() string      { return "file_write" }
func (BootConfigDone) hostType() string { return "boot_config_done" }
func (Ping) hostType() string           { return "ping" }
func (Shutdown) hostType() string       { return "shutdown" }
func (Ready) guestType() string         { return "ready" }
func (BootReady) guestType() string     { return "boot_ready" }
func (BootTiming) guestType() string    { return "boot_timing" }
func (Pong) guestType() string          { return "pong" }

type envelope struct {
	T string          `cbor:"t"`
	D cbor.RawMessage `cbor:"d"`
}

// WriteHost writes one host message.
func WriteHost(w io.Writer, m HostMessage) error { return writeEnvelope(w, m.hostType(), m) }

// WriteGuest writes one guest message.
func WriteGuest(w io.Writer, m GuestMessage) error { return writeEnvelope(w, m.guestType(), m) }

func writeEnvelope(w io.Writer, t string, m any) error {
	d, err := encMode.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode %s: %w", t, err)
	}
	return WriteFrame(w, envelope{T: t, D: d})
}

// ReadHost reads and validates one host message (in the guest).
func ReadHost(r io.Reader) (HostMessage, error) {
	var e envelope
	if err := ReadFrame(r, MaxFrame, &e); err != nil {
		return nil, err
	}
	switch e.T {
	case "boot_config":
		return decodeAs[BootConfig](e)
	case "file_write":
		return decodeAs[FileWrite](e)
	case "boot_config_done":
		return decodeAs[BootConfigDone](e)
	case "ping":
		return decodeAs[Ping](e)
	case "shutdown":
		return decodeAs[Shutdown](e)
	}
	return nil, fmt.Errorf("control: unknown host message %.40q", e.T)
}

// ReadGuest reads and validates one guest message (on the host).
func ReadGuest(r io.Reader) (GuestMessage, error) {
	var e envelope
	if err := ReadFrame(r, MaxFrame, &e); err != nil {
		return nil, err
	}
	switch e.T {
	case "ready":
		return decodeAs[Ready](e)
	case "boot_ready":
		return decodeAs[BootReady](e)
	case "boot_timing":
		return decodeAs[BootTiming](e)
	case "pong":
		return decodeAs[Pong](e)
	}
	return nil, fmt.Errorf("control: unknown guest message %.40q", e.T)
}

type validator interface{ validate() error }

// decodeAs returns the zero value with an error: nothing of a message that was refused gets out.
func decodeAs[T any](e envelope) (T, error) {
	var m, none T
	if noBody(e.D) {
		return none, fmt.Errorf("control %s: read body: %w", e.T, io.ErrUnexpectedEOF)
	}
	if err := Unmarshal(e.D, &m); err != nil {
		return none, fmt.Errorf("control %s: %w", e.T, err)
	}
	if v, ok := any(m).(validator); ok {
		if err := v.validate(); err != nil {
			return none, fmt.Errorf("control %s: %w", e.T, err)
		}
	}
	return m, nil
}

// noBody tells that an envelope came without a message: CBOR would make the zero value of null and undefined.
func noBody(d []byte) bool {
	return len(d) == 0 || d[0] == 0xf6 || d[0] == 0xf7
}
