// Package budget holds VMs to what their owner gives them: money, tokens, requests to models and bytes, for a session or for a day, of one
// VM, of all VMs of an image, or of the installation. What a request may cost is taken before it is sent and settled when it has ended,
// so that many at once cannot pass a limit together.
//
// All workers of an installation share one file of small records, under one lock. It lies outside of what is suspended, forked or
// rewound. What a worker had taken when it was killed counts as spent: rather too much than too little.
package budget

import (
	"fmt"
	"strconv"

	"capsem/core/inspect/price"
)

// Meter is what is limited.
type Meter int

// The meters. Money is in billionths of a dollar, see price.Nano.
const (
	Money Meter = iota
	Tokens
	Requests
	Bytes
	meters
)

var meterNames = [meters]string{"money", "tokens", "requests", "bytes"}

// String is its name.
func (m Meter) String() string { return meterNames[m] }

// Meters lists all.
func Meters() []Meter { return []Meter{Money, Tokens, Requests, Bytes} }

// Text is an amount for people.
func (m Meter) Text(n int64) string {
	if m == Money {
		return "$" + price.Nano(n).String()
	}
	return strconv.FormatInt(n, 10) + " " + m.String()
}

// Period is for how long a limit holds.
type Period int

// The periods. A session is the life of a VM, with all VMs that were forked from it. A day ends at midnight in the owner's zone.
const (
	Session Period = iota
	Day
	periods
)

var periodNames = [periods]string{"session", "day"}

// String is its name.
func (p Period) String() string { return periodNames[p] }

// Kind is whose limit it is.
type Kind uint8

// The kinds. A session's limit of an image or of the installation holds for each session of its own.
const (
	Install Kind = iota + 1
	Image
	VM
)

var kindNames = map[Kind]string{Install: "install", Image: "image", VM: "vm"}

// String is its name.
func (k Kind) String() string { return kindNames[k] }

// Scope is whose limit it is, by name: a VM is named by its family, see proto.VMSpec.BudgetFamily. That of the installation is empty.
type Scope struct {
	Kind Kind
	Name string
}

// Amount is so much of each meter.
type Amount [meters]int64

func (a Amount) plus(b Amount) Amount {
	for m := range a {
		a[m] = clamp(a[m] + b[m])
	}
	return a
}

// most bounds every number: sums of two cannot overflow.
const most = 1 << 61

func clamp(n int64) int64 { return min(max(n, 0), most) }

// NoLimit stands where there is no limit.
const NoLimit = -1

// Exceeded is the error of what a limit does not allow.
type Exceeded struct {
	Scope  Scope
	Period Period
	Meter  Meter
	// Limit is the limit, Used what is spent or taken, Asked what was asked for on top of it.
	Limit, Used, Asked int64
}

// Error says which limit, and how much is used.
func (e *Exceeded) Error() string {
	whose := map[Kind]string{Install: "this installation", Image: "image " + e.Scope.Name, VM: "this VM"}[e.Scope.Kind]
	if e.Period == Session && e.Scope.Kind != VM {
		whose = "each VM of " + whose
	}
	per := map[Period]string{Session: "in all", Day: "a day"}[e.Period]
	return fmt.Sprintf("the budget of %s is %s %s; %s are used or reserved, and this request may need %s",
		whose, e.Meter.Text(e.Limit), per, e.Meter.Text(e.Used), e.Meter.Text(e.Asked))
}

// Warning says that a part of a limit is used.
type Warning struct {
	Scope  Scope
	Period Period
	Meter  Meter
	// Percent is 50, 80, 95 or 100.
	Percent     int
	Limit, Used int64
}

// String is the warning in one line.
func (w Warning) String() string {
	return fmt.Sprintf("%d %% of the %s budget of %s%s a %s: %s of %s", w.Percent, w.Meter, w.Scope.Kind, space(w.Scope.Name), w.Period,
		w.Meter.Text(w.Used), w.Meter.Text(w.Limit))
}

func space(s string) string {
	if s == "" {
		return ""
	}
	return " " + s
}

// steps are the parts of a limit of which there is a warning.
var steps = [...]int{50, 80, 95, 100}

// step is how many of the steps are passed.
func step(used, limit int64) uint8 {
	n := uint8(0)
	for _, s := range steps {
		if limit > 0 && atLeast(used, limit, int64(s)) {
			n++
		}
	}
	return n
}

// atLeast reports whether used is at least so many hundredths of limit.
func atLeast(used, limit, percent int64) bool {
	return used >= limit/100*percent+(limit%100*percent+99)/100
}
