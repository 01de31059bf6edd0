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
	"capsem/core/export"
	"capsem/core/export/live"
	"capsem/core/fault"
	"capsem/core/mcp"
	"capsem/core/paths"
)

//go:embed defaults.toml
var defaults []byte

// maxFile bounds a settings file, in bytes.
const maxFile = 1 << 20

// Settings is the result.
type Settings struct {
	VM      VM
	Network Network
	Detect  Detect
	Export  Export
	Log     Log
	// MCP are the MCP servers that VMs may use, by name.
	MCP map[string]mcp.Definition
}

// Export says where what is recorded is sent while it happens.
type Export struct {
	// OTLP is a collector, Syslog and Stream take an event each time; see core/export/live for their addresses. Empty is nowhere.
	OTLP, Syslog, Stream string
	// Format is what Syslog and Stream get: jsonl or ocsf.
	Format string
}

// Detect says what becomes of what detectors find in allowed traffic: off, report, ask or deny.
type Detect struct {
	// Placeholders are those of credentials on their way to a host they are not for; Secrets what looks like a key, and OwnSecrets
	// pieces of the stored secrets, on their way out; Injection is orders to a model in what comes back.
	Placeholders, Secrets, OwnSecrets, Injection string
}

// Network is how VMs reach out.
type Network struct {
	// DNS are the name servers that are asked, addresses or https URLs; none are the host's.
	DNS []string
	// Proxy is the HTTP proxy through which the world is reached, as a URL; empty is none.
	Proxy string
	// CAFiles are certificates to trust upstream besides the system's; Bypass hosts whose TLS is passed on, not ended.
	CAFiles, Bypass []string
	// ClientCerts are certificates to show to hosts that ask, each HOST=FILE or HOST=FILE,KEYFILE.
	ClientCerts []string
	// AskTimeout is how long a question to the owner stands.
	AskTimeout time.Duration
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
	// Snapshots bounds the copies of workspaces.
	Snapshots Snapshots
	// RecordMB is how large the record of a VM may become until file and audit events are only counted in it.
	RecordMB int
	// Retention says which records of VMs that are gone are kept.
	Retention Retention
}

// Snapshots bounds the copies of a VM's workspace.
type Snapshots struct {
	// AutoMax and ManualMax are how many are kept of each kind, Interval the time between automatic ones.
	AutoMax, ManualMax int
	Interval           time.Duration
}

// Retention bounds the records of VMs that are gone.
type Retention struct {
	// Days is how long a record is kept, Sessions how many, DiskGB how much room they take together; IndexDays is how long it is known
	// that there was one.
	Days, Sessions, DiskGB, IndexDays int
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
		Snapshots struct {
			AutoMax      *int    `toml:"auto_max"`
			ManualMax    *int    `toml:"manual_max"`
			AutoInterval *string `toml:"auto_interval"`
		} `toml:"snapshots"`
		Record struct {
			MaxMB *int `toml:"max_mb"`
		} `toml:"record"`
		Resources struct {
			CPUCount         *int `toml:"cpu_count"`
			RAMMB            *int `toml:"ram_mb"`
			DiskGB           *int `toml:"disk_gb"`
			MaxConcurrentVMs *int `toml:"max_concurrent_vms"`
			RetentionDays    *int `toml:"retention_days"`
			MaxSessions      *int `toml:"max_sessions"`
			MaxDiskGB        *int `toml:"max_disk_gb"`
			TerminatedDays   *int `toml:"terminated_retention_days"`
		} `toml:"resources"`
	} `toml:"vm"`
	Network struct {
		DNS         *[]string `toml:"dns"`
		Proxy       *string   `toml:"proxy"`
		CAFiles     *[]string `toml:"ca_files"`
		ClientCerts *[]string `toml:"client_certs"`
		Bypass      *[]string `toml:"bypass"`
		AskTimeout  *string   `toml:"ask_timeout"`
	} `toml:"network"`
	Detect struct {
		Placeholders *string `toml:"placeholders"`
		Secrets      *string `toml:"secrets"`
		OwnSecrets   *string `toml:"own_secrets"`
		Injection    *string `toml:"injection"`
	} `toml:"detect"`
	Export struct {
		OTLP   *string `toml:"otlp"`
		Syslog *string `toml:"syslog"`
		Stream *string `toml:"stream"`
		Format *string `toml:"format"`
	} `toml:"export"`
	Log struct {
		Level *string `toml:"level"`
	} `toml:"log"`
	MCP struct {
		Servers map[string]server `toml:"servers"`
	} `toml:"mcp"`
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
	net := &f.Network
	c.texts(&s.Network.DNS, net.DNS, "network.dns")
	c.free(&s.Network.Proxy, net.Proxy, "network.proxy")
	c.texts(&s.Network.CAFiles, net.CAFiles, "network.ca_files")
	c.texts(&s.Network.ClientCerts, net.ClientCerts, "network.client_certs")
	c.texts(&s.Network.Bypass, net.Bypass, "network.bypass")
	c.duration(&s.Network.AskTimeout, net.AskTimeout, "network.ask_timeout", time.Second, 24*time.Hour)
	found := &f.Detect
	c.word(&s.Detect.Placeholders, found.Placeholders, "detect.placeholders", "report", "ask", "deny")
	c.word(&s.Detect.Secrets, found.Secrets, "detect.secrets", "off", "report", "ask", "deny")
	c.word(&s.Detect.OwnSecrets, found.OwnSecrets, "detect.own_secrets", "off", "report", "ask", "deny")
	c.word(&s.Detect.Injection, found.Injection, "detect.injection", "off", "report", "ask", "deny")
	out := &f.Export
	c.address(&s.Export.OTLP, out.OTLP, "export.otlp", live.OTLP)
	c.address(&s.Export.Syslog, out.Syslog, "export.syslog", live.Syslog)
	c.address(&s.Export.Stream, out.Stream, "export.stream", live.Stream)
	c.word(&s.Export.Format, out.Format, "export.format", export.JSONL, export.OCSF)
	shots := &f.VM.Snapshots
	c.number(&s.VM.Snapshots.AutoMax, shots.AutoMax, 1, "vm.snapshots.auto_max", 1, 50)
	c.number(&s.VM.Snapshots.ManualMax, shots.ManualMax, 1, "vm.snapshots.manual_max", 1, 50)
	c.duration(&s.VM.Snapshots.Interval, shots.AutoInterval, "vm.snapshots.auto_interval", 30*time.Second, time.Hour)
	c.number(&s.VM.RecordMB, f.VM.Record.MaxMB, 1, "vm.record.max_mb", 16, 1<<20)
	keep := &s.VM.Retention
	c.number(&keep.Days, r.RetentionDays, 1, "vm.resources.retention_days", 1, 365)
	c.number(&keep.Sessions, r.MaxSessions, 1, "vm.resources.max_sessions", 1, 10000)
	c.number(&keep.DiskGB, r.MaxDiskGB, 1, "vm.resources.max_disk_gb", 1, 1000)
	c.number(&keep.IndexDays, r.TerminatedDays, 1, "vm.resources.terminated_retention_days", 30, 3650)
	c.word(&s.VM.Accelerator, f.VM.Accelerator, "vm.accelerator", "auto", "kvm", "tcg")
	c.word(&s.Log.Level, f.Log.Level, "log.level", "debug", "info", "warn", "error")
	c.duration(&s.VM.ReadyTimeout, f.VM.ReadyTimeout, "vm.ready_timeout", time.Second, time.Hour)
	c.number(&s.VM.PoolSize, f.VM.Pool.Size, 1, "vm.pool.size", 0, 20)
	c.duration(&s.VM.IdleSuspend, f.VM.Idle.SuspendAfter, "vm.idle.suspend_after", 0, 1000*time.Hour)
	c.truth(&s.VM.WarmStart, f.VM.WarmStart, "vm.warm_start")
	c.servers(&s.MCP, f.MCP.Servers)
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
		value = strings.NewReplacer("[]string{", "[", "}", "]").Replace(fmt.Sprintf("%#v", *from)) // as TOML has it
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

// address is one that records are sent to.
func (c *checker) address(to, from *string, key, target string) {
	see(c, key, "address", from)
	if from == nil {
		return
	}
	if err := live.Check(target, *from); err != nil {
		c.complain(key, "is wrong: %s", fault.Line(err))
		return
	}
	*to = *from
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

// maxTexts bounds a list in a settings file.
const maxTexts = 100

func (c *checker) texts(to, from *[]string, key string) {
	see(c, key, "list of texts", from)
	switch {
	case from == nil:
	case len(*from) > maxTexts:
		c.complain(key, "has %d entries; it may have %d", len(*from), maxTexts)
	default:
		*to = *from
	}
}

func (c *checker) free(to, from *string, key string) {
	see(c, key, "text", from)
	if from != nil {
		*to = *from
	}
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
