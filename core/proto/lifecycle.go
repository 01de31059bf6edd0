package proto

import "fmt"

// LifecycleAction is what a process in the guest asks for on PortLifecycle.
type LifecycleAction string

// The actions.
const (
	// ActionPoweroff ends the VM (shutdown, halt, poweroff).
	ActionPoweroff LifecycleAction = "poweroff"
	// ActionReboot starts it again.
	ActionReboot LifecycleAction = "reboot"
	// ActionSuspend saves it to disk.
	ActionSuspend LifecycleAction = "suspend"
)

// LifecycleRequest is the one CBOR frame the guest sends after the stream header.
type LifecycleRequest struct {
	// Action is what to do.
	Action LifecycleAction `cbor:"action"`
}

// LifecycleReply is the one CBOR frame the host answers with.
type LifecycleReply struct {
	// OK says that it will be done; Message why not.
	OK      bool   `cbor:"ok"`
	Message string `cbor:"message,omitempty"`
}

// Validate checks the action.
func (l LifecycleRequest) Validate() error {
	switch l.Action {
	case ActionPoweroff, ActionReboot, ActionSuspend:
		return nil
	}
	return fmt.Errorf("unknown lifecycle action %.20q", l.Action)
}
