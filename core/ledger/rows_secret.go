package ledger

import "time"

// Substitution is what happened to a credential in a request or its answer. It never has the value.
type Substitution struct {
	// Time is when; zero is now.
	Time time.Time
	// Action is "injected", "scrubbed", "refused" or "misplaced".
	Action string
	// Credential and Kind name it.
	Credential, Kind string
	// Domain is whom the request was for, Place the part of it, Form how the credential was written there.
	Domain, Place, Form string
	// Process is who sent it.
	Process Process
}

func (e Substitution) table() int { return substitutionTable }

func (e Substitution) encode(c *cells) {
	c.time(e.Time)
	c.text(e.Action)
	c.text(e.Credential)
	c.text(e.Kind)
	c.text(e.Domain)
	c.text(e.Place)
	c.text(e.Form)
	c.text(e.Process.Name)
	c.id(e.Process.PID)
}

// Detection is something that a detector found, and what became of it.
type Detection struct {
	// Time is when; zero is now.
	Time time.Time
	// Detector found it, Rule says what it is; it is not quoted.
	Detector, Rule string
	// Outcome is "reported", "approved" or "denied".
	Outcome string
	// Domain is whom the request was for, Place the part of it or of the answer.
	Domain, Place string
	// Process is who sent it.
	Process Process
}

func (e Detection) table() int { return detectionTable }

func (e Detection) encode(c *cells) {
	c.time(e.Time)
	c.text(e.Detector)
	c.text(e.Rule)
	c.text(e.Outcome)
	c.text(e.Domain)
	c.text(e.Place)
	c.text(e.Process.Name)
	c.id(e.Process.PID)
}
