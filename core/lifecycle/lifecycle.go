// Package lifecycle is the state machine of one VM: the states a user can see and the moves between them.
package lifecycle

import (
	"fmt"
	"slices"
)

// State is where a VM is in its life. The text is what list, info and the API show.
type State string

// The states.
const (
	// Created is a VM whose directory exists and whose worker has not been started.
	Created State = "Created"
	// Booting is a VM whose worker runs and whose guest agent has not answered yet.
	Booting State = "Booting"
	// Running is a VM whose guest agent has answered.
	Running State = "Running"
	// Stopping is a VM on its way down, by request or by its own power-off.
	Stopping State = "Stopping"
	// Stopped is a named VM that is down cleanly; an unnamed one is gone instead.
	Stopped State = "Stopped"
	// Suspended is a VM whose memory is on disk.
	Suspended State = "Suspended"
	// Defunct is a VM whose worker or hypervisor died unexpectedly; a named one can be resumed.
	Defunct State = "Defunct"
)

// moves lists, for each state, the states it may go to.
var moves = map[State][]State{
	Created:   {Booting, Stopped, Defunct},
	Booting:   {Running, Stopping, Stopped, Defunct},
	Running:   {Booting, Stopping, Stopped, Suspended, Defunct}, // Booting: reboot from inside
	Stopping:  {Stopped, Defunct, Booting},
	Stopped:   {Booting},
	Suspended: {Booting, Stopped, Defunct},
	Defunct:   {Booting, Stopped},
}

// TransitionError is a move the table does not allow.
type TransitionError struct {
	// From and To are the refused move.
	From, To State
}

// Error names the refused move.
func (e *TransitionError) Error() string {
	return fmt.Sprintf("a VM cannot go from %s to %s", e.From, e.To)
}

// Check returns nil when a VM may go from one state to the other, else a *TransitionError. Staying is allowed.
func Check(from, to State) error {
	if from == to {
		return nil
	}
	if slices.Contains(moves[from], to) {
		return nil
	}
	return &TransitionError{From: from, To: to}
}

// Known reports whether s is one of the states.
func Known(s State) bool {
	_, ok := moves[s]
	return ok
}

// Live reports whether a VM in this state has a worker process.
func Live(s State) bool { return s == Booting || s == Running || s == Stopping }
