// Package config reads the settings: embedded defaults, over them user.toml of CAPSEM_HOME, over that the machine owner's
// corp.toml, which nothing overrides. Every key is typed; an unknown one is an error that names its line and the nearest key.
package config

import (
	_ "embed" // for defaults.toml
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/paths"
)

//go:embed defaults.toml
var defaults []byte

// maxFile bounds a settings file, in bytes.
const maxFile = 1 << 20

// Settings is the result.
type Settings struct {
	VM  VM
	Log Log
}

// VM is how virtual machines are made.
type VM struct {
	// CPUs, RAMMB and DiskMB are the defaults of a new VM; MaxVMs is how many may run at once.
	CPUs, RAMMB, DiskMB, MaxVMs int
	// Accelerator is auto, kvm or tcg.
	Accelerator string
	// ReadyTimeout is how long a guest may take until it answers.
	ReadyTimeout time.Duration
	// WarmStart lets new VMs go on from a template, a saved guest, which is made after the first start of its kind.
	WarmStart bool
	// PoolSize is how many VMs are kept ready for capsem run.
	PoolSize int
	// IdleSuspend is how long nobody may use a named VM before it is suspended; 0 is for ever.
	IdleSuspend time.Duration
}

// Log is how much is logged.
type Log struct {
	// Level is debug, info, warn or error.
	Level string
}

// file is the shape of a settings file. A nil says nothing.
type file struct {
	VM struct {
		Accelerator  *string `toml:"accelerator"`
		ReadyTimeout *string `toml:"ready_timeout"`
		WarmStart    *bool   `toml:"warm_start"`
		Pool         struct {
			Size *int `toml:"size"`
		} `toml:"pool"`
		Idle struct {
			SuspendAfter *string `toml:"suspend_after"`
		} `toml:"idle"`
		Resources struct {
			CPUCount         *int `toml:"cpu_count"`
			RAMMB            *int `toml:"ram_mb"`
			DiskGB           *int `toml:"disk_gb"`
			MaxConcurrentVMs *int `toml:"max_concurrent_vms"`
		} `toml:"resources"`
	} `toml:"vm"`
	Log struct {
		Level *string `toml:"level"`
	} `toml:"log"`
}

// Load reads the settings of an installation. Errors are faults that name the file and line.
func Load(home paths.Home) (*Settings, error) { return load(home.UserConfig(), paths.CorpConfig()) }

func load(user, corp string) (*Settings, error) {
	s, err := Defaults()
	if err != nil {
		return nil, err
	}
	for _, name := range []string{user, corp} {
		text, err := read(name)
		if err != nil {
			return nil, err
		}
		if err := s.apply(name, text); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// read returns the text of a settings file; an absent one is empty.
func read(name string) ([]byte, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "cannot read the settings in %s: %s", name, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "cannot read the settings in %s: %s", name, err)
	}
	if len(text) > maxFile {
		return nil, fault.New(fault.Invalid, "%s is longer than 1 MiB: that is no settings file", name)
	}
	return text, nil
}

// apply puts what one file says over the settings so far.
func (s *Settings) apply(name string, text []byte) error {
	f, err := parse(name, text)
	if err != nil {
		return err
	}
	c := checker{name: name, text: text}
	s.check(&c, f)
	return c.err
}

// check holds every value to its type and takes it over. It is the list of the settings there are.
func (s *Settings) check(c *checker, f *file) {
	r := &f.VM.Resources
	c.number(&s.VM.CPUs, r.CPUCount, 1, "vm.resources.cpu_count", api.MinCPUs, api.MaxCPUs)
	c.number(&s.VM.RAMMB, r.RAMMB, 1, "vm.resources.ram_mb", api.MinRAMMB, api.MaxRAMMB)
	c.number(&s.VM.DiskMB, r.DiskGB, 1024, "vm.resources.disk_gb", api.MinDiskMB/1024, api.MaxDiskMB/1024)
	c.number(&s.VM.MaxVMs, r.MaxConcurrentVMs, 1, "vm.resources.max_concurrent_vms", 1, 100)
	c.word(&s.VM.Accelerator, f.VM.Accelerator, "vm.accelerator", "auto", "kvm", "tcg")
	c.word(&s.Log.Level, f.Log.Level, "log.level", "debug", "info", "warn", "error")
	c.duration(&s.VM.ReadyTimeout, f.VM.ReadyTimeout, "vm.ready_timeout", time.Second, time.Hour)
	c.number(&s.VM.PoolSize, f.VM.Pool.Size, 1, "vm.pool.size", 0, 20)
	c.duration(&s.VM.IdleSuspend, f.VM.Idle.SuspendAfter, "vm.idle.suspend_after", 0, 1000*time.Hour)
	c.truth(&s.VM.WarmStart, f.VM.WarmStart, "vm.warm_start")
}

// checker puts values into the settings and keeps the first complaint.
type checker struct {
	name string
	text []byte
	err  error
	// seen, when set, is told of every setting: what a value must be, and what the file says, as it is written there.
	seen func(key, kind, value string)
}

// see tells of a setting. from is nil when the file says nothing.
func see[T any](c *checker, key, kind string, from *T) {
	if c.seen == nil {
		return
	}
	value := ""
	if from != nil {
		value = fmt.Sprintf("%#v", *from)
	}
	c.seen(key, kind, value)
}

func (c *checker) complain(key, format string, args ...any) {
	if c.err == nil {
		c.err = fault.New(fault.Invalid, "%s: %s", place(c.name, lineOf(c.text, key)), key+" "+fmt.Sprintf(format, args...))
	}
}

func (c *checker) number(to, from *int, times int, key string, least, most int) {
	see(c, key, fmt.Sprintf("number, %d to %d", least, most), from)
	switch {
	case from == nil:
	case *from < least || *from > most:
		c.complain(key, "is %d; it must be %d to %d", *from, least, most)
	default:
		*to = *from * times
	}
}

func (c *checker) word(to, from *string, key string, allowed ...string) {
	see(c, key, "one of "+strings.Join(allowed, ", "), from)
	if from == nil {
		return
	}
	for _, a := range allowed {
		if *from == a {
			*to = a
			return
		}
	}
	c.complain(key, "is %.40q; it must be one of %q", *from, allowed)
}

func (c *checker) truth(to, from *bool, key string) {
	see(c, key, "true or false", from)
	if from != nil {
		*to = *from
	}
}

func (c *checker) duration(to *time.Duration, from *string, key string, least, most time.Duration) {
	see(c, key, fmt.Sprintf("time, %s to %s", short(least), short(most)), from)
	if from == nil {
		return
	}
	d, err := time.ParseDuration(*from)
	if err != nil || d < least || d > most {
		c.complain(key, "is %.40q; it must be a time from %s to %s, such as \"90s\"", *from, least, most)
		return
	}
	*to = d
}

// short writes a whole number of hours, minutes or seconds without what is zero.
func short(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-len(zero)+1]
		}
	}
	return text
}
