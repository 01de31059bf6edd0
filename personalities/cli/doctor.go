package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"capsem/core/fault"
)

// doctorPatience bounds one question to the guest.
const doctorPatience = 2 * time.Minute

func (s *session) doctorCommand() *cli.Command {
	return &cli.Command{
		Name: "doctor", Category: groupService, Usage: "check this machine and a VM", UsageText: "doctor [--json]", Flags: []cli.Flag{jsonFlag()},
		Description: "Checks the hypervisor, the accelerator, space, permissions and the image; then starts a temporary VM and checks from\n" +
			"inside that it is sealed. Exits with 1 when a check fails.",
		Action: action(s.doctor),
	}
}

// check is one line of doctor.
type check struct {
	// Name is what was looked at; Where is host or guest.
	Name  string `json:"name"`
	Where string `json:"where"`
	OK    bool   `json:"ok"`
	// Detail is what was found; Hint what to do when it is not OK.
	Detail string `json:"detail,omitempty"`
	Hint   string `json:"hint,omitempty"`
}

// diagnosis collects checks, and prints each as it is made unless JSON is wanted.
type diagnosis struct {
	s      *session
	json   bool
	checks []check
	where  string
}

func (d *diagnosis) report(c check) {
	c.Where = d.where
	c.Name, c.Detail, c.Hint = clean(c.Name), clean(c.Detail), clean(c.Hint)
	d.checks = append(d.checks, c)
	if d.json {
		return
	}
	verdict, hint := "PASS", ""
	if !c.OK {
		verdict = "FAIL"
		if c.Hint != "" {
			hint = "      " + c.Hint + "\n"
		}
	}
	// A broken stdout shows again at the end, where it is reported.
	_, _ = io.WriteString(d.s.env.Stdout, strings.TrimRight(fmt.Sprintf("%s  %-5s  %-22s %s", verdict, c.Where, c.Name, c.Detail), " ")+"\n"+hint)
}

// add reports a check that passes when err is nil, with its fault's hint otherwise.
func (d *diagnosis) add(name, detail string, err error) bool {
	if err == nil {
		d.report(check{Name: name, OK: true, Detail: detail})
		return true
	}
	_, message, hint := fault.Public(err)
	d.report(check{Name: name, Detail: message, Hint: hint})
	return false
}

func (d *diagnosis) failed() int {
	n := 0
	for _, c := range d.checks {
		if !c.OK {
			n++
		}
	}
	return n
}

func (s *session) doctor(ctx context.Context, c *cli.Context) error {
	if _, err := words(c, 0, 0); err != nil {
		return err
	}
	home, err := s.home()
	if err != nil {
		return err
	}
	d := &diagnosis{s: s, json: c.Bool("json"), where: "host"}
	if ready := d.host(ctx, home); ready && ctx.Err() == nil {
		d.where = "guest"
		d.guest(ctx)
	} else if ctx.Err() == nil {
		d.where = "guest"
		d.report(check{Name: "VM", Detail: "not tried", Hint: "mend what failed above first"})
	}
	if ctx.Err() != nil {
		return fmt.Errorf("examine: %w", ctx.Err())
	}
	if c.Bool("json") {
		err = s.printJSON(map[string]any{"ok": d.failed() == 0, "checks": d.checks})
	} else {
		err = s.print(fmt.Sprintf("%d checks, %d failed\n", len(d.checks), d.failed()))
	}
	if err == nil && d.failed() > 0 {
		err = &fault.Exit{Status: fault.ExitFailure}
	}
	return err
}
