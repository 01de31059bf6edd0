package export

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"capsem/core/ledger"
)

// schema is what testdata has of the schema of OCSF; its "source" says where it is from.
type schema struct {
	Version string
	Classes map[string]struct {
		UID        int
		Attributes map[string]attr
	}
	Objects map[string]map[string]attr
}

type attr struct {
	Type                   string
	Object, List, Required bool
	// Profile is the profile that brings it; without that it is not there.
	Profile string
	Enum    []string
}

// atLeastOne is what the sources of the schema (objects/*.json, events/network/http_activity.json) demand beside requirements.
var atLeastOne = map[string][]string{
	"actor":            {"process", "user", "invoked_by", "session", "app_name", "app_uid"},
	"network_endpoint": {"ip", "uid", "name", "hostname", "svc_name", "instance_uid", "interface_uid", "interface_name"},
	"device":           {"ip", "uid", "name", "hostname", "instance_uid", "interface_uid", "interface_name"},
	"process":          {"pid", "uid"},
	"user":             {"account", "name", "uid"},
	"http_activity":    {"http_request", "http_response"},
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?$`)

// simple are the checks of types that are no objects.
var simple = map[string]func(v any) bool{
	"string_t": text(func(string) bool { return true }), "username_t": text(func(s string) bool { return s != "" }), "process_name_t": text(func(string) bool { return true }),
	"file_name_t": text(func(s string) bool { return s != "" }), "path_t": text(func(string) bool { return true }), "email_t": text(func(string) bool { return true }),
	"hostname_t":   text(func(s string) bool { return hostName.MatchString(s) || net.ParseIP(s) != nil }),
	"ip_t":         text(func(s string) bool { return net.ParseIP(s) != nil }),
	"url_t":        text(func(s string) bool { u, err := url.Parse(s); return err == nil && u.IsAbs() }),
	"boolean_t":    func(v any) bool { _, ok := v.(bool); return ok },
	"integer_t":    whole(math.MinInt32, math.MaxInt32),
	"long_t":       whole(math.MinInt64, math.MaxInt64),
	"timestamp_t":  whole(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli(), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()),
	"port_t":       whole(0, 65535),
	"datetime_t":   text(func(s string) bool { _, err := time.Parse(time.RFC3339Nano, s); return err == nil }),
	"json_t":       func(any) bool { return true },
	"float_t":      func(v any) bool { _, ok := v.(json.Number); return ok },
	"mac_t":        text(func(s string) bool { _, err := net.ParseMAC(s); return err == nil }),
	"file_hash_t":  text(func(string) bool { return true }),
	"bytestring_t": text(func(string) bool { return true }),
}

func text(fits func(string) bool) func(any) bool {
	return func(v any) bool { s, ok := v.(string); return ok && fits(s) }
}

func whole(least, most int64) func(any) bool {
	return func(v any) bool {
		n, ok := v.(json.Number)
		if !ok {
			return false
		}
		i, err := strconv.ParseInt(n.String(), 10, 64)
		return err == nil && i >= least && i <= most
	}
}

// validator collects what is wrong with an event.
type validator struct {
	schema   *schema
	profiles []string
	wrong    []string
}

func (v *validator) complain(format string, args ...any) {
	v.wrong = append(v.wrong, fmt.Sprintf(format, args...))
}

// event holds an event to its class, and its ids to each other.
func (v *validator) event(e map[string]any) {
	n := func(name string) int64 {
		i, _ := e[name].(json.Number)
		x, _ := i.Int64()
		return x
	}
	if m, ok := e["metadata"].(map[string]any); ok {
		list, _ := m["profiles"].([]any)
		for _, p := range list {
			v.profiles = append(v.profiles, fmt.Sprint(p))
		}
		if m["version"] != v.schema.Version {
			v.complain("metadata.version is %v", m["version"])
		}
	}
	for name, c := range v.schema.Classes {
		category := n("category_uid")
		if class := n("class_uid"); category*1000+int64(c.UID) != class || n("type_uid") != class*100+n("activity_id") {
			continue
		}
		if !slices.Contains(c.Attributes["class_uid"].Enum, strconv.FormatInt(n("class_uid"), 10)) && !slices.Contains(c.Attributes["class_uid"].Enum, strconv.Itoa(c.UID)) {
			continue
		}
		v.object(name, name, e, c.Attributes)
		return
	}
	v.complain("no class %v", e["class_uid"])
}

// object holds an object to its attributes.
func (v *validator) object(at, kind string, o map[string]any, attributes map[string]attr) {
	for name, value := range o {
		a, ok := attributes[name]
		if !ok || a.Profile != "" && !slices.Contains(v.profiles, a.Profile) {
			v.complain("%s.%s is not in the schema, or not without its profile %q", at, name, a.Profile)
			continue
		}
		v.value(at+"."+name, value, &a)
	}
	for name, a := range attributes {
		if _, there := o[name]; a.Required && !there && (a.Profile == "" || slices.Contains(v.profiles, a.Profile)) {
			v.complain("%s.%s is missing", at, name)
		}
	}
	if some := atLeastOne[kind]; some != nil && !slices.ContainsFunc(some, func(name string) bool { _, ok := o[name]; return ok }) {
		v.complain("%s has none of %v", at, some)
	}
}

func (v *validator) value(at string, value any, a *attr) {
	if a.List {
		list, ok := value.([]any)
		if !ok {
			v.complain("%s is no list", at)
			return
		}
		one := *a
		one.List = false
		for i, x := range list {
			v.value(fmt.Sprintf("%s[%d]", at, i), x, &one)
		}
		return
	}
	if len(a.Enum) > 0 && !slices.Contains(a.Enum, fmt.Sprint(value)) {
		v.complain("%s is %v, not one of %v", at, value, a.Enum)
	}
	if !a.Object {
		if fits := simple[a.Type]; fits == nil || !fits(value) {
			v.complain("%s is no %s: %v", at, a.Type, value)
		}
		return
	}
	o, ok := value.(map[string]any)
	switch attributes := v.schema.Objects[a.Type]; {
	case !ok:
		v.complain("%s is no object", at)
	case a.Type == "object": // whatever is in it
	case attributes == nil:
		v.complain("%s is of %s, which testdata does not have", at, a.Type)
	default:
		v.object(at, a.Type, o, attributes)
	}
}

func loadSchema(t *testing.T) *schema {
	t.Helper()
	data, err := os.ReadFile("testdata/ocsf-1.2.0.json")
	if err != nil {
		t.Fatal(err)
	}
	var s schema
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	return &s
}

// oddities are events whose fields are missing, or are what a guest could make them.
func oddities() []ledger.Row {
	at := began
	return []ledger.Row{
		ledger.NetEvent{Time: at},
		ledger.DNSEvent{Time: at},
		ledger.ModelCall{Time: at, CostUSD: math.NaN()},
		ledger.MCPCall{Time: at},
		ledger.FileEvent{Time: at, Size: -1},
		ledger.AuditEvent{Time: at},
		ledger.ExecEvent{Time: at},
		ledger.Lifecycle{Time: at},
		ledger.Detection{Time: at},
		ledger.Substitution{Time: at},
		ledger.SnapshotEvent{Time: at},
		ledger.Approval{Time: at},
		ledger.NetEvent{Time: at, Domain: "10.1.2.3", Port: 99999, Decision: "error", Error: "cut", Method: "PURGE", Status: 99, Type: "h2", Remote: "no address", Sent: -1, Received: math.MaxInt64, Duration: 1000 * time.Hour},
		ledger.NetEvent{Time: at, Domain: "a b<c", Port: -1, Method: "GET", Path: "no slash %zz", Query: "%", Type: "http", RequestHeaders: map[string][]string{"User-Agent": {"\x00\xff"}}},
		ledger.DNSEvent{Time: at, Name: "x.test", Type: "TYPE65", Decision: "denied", Rule: "r", Reason: "why", Code: "NXDOMAIN"},
		ledger.DNSEvent{Time: at, Name: "..\x01", Type: "AAAA", Decision: "allowed", Code: "SERVFAIL", Answer: "2001:db8::1", Error: "broken"},
		ledger.FileEvent{Time: at, Action: "restored", Path: "/"},
		ledger.FileEvent{Time: at, Action: "renamed", Path: "a/b\n"},
		ledger.AuditEvent{Time: at, PID: math.MaxInt32 + 1, PPID: -5, UID: 1 << 40, Exe: "/", Comm: "", ParentExe: "/bin/sh", ExitCode: -13},
		ledger.ExecEvent{Time: at, ExecID: "e", ExitCode: 137, Duration: time.Second, Process: ledger.Process{PID: 1 << 40, Name: "x"}},
		ledger.ModelCall{Time: at, Provider: "p", Status: 529, Duration: -time.Second, CostUSD: 0},
		ledger.MCPCall{Time: at, Server: "s", Method: "tools/call", Decision: "denied", Rule: "r"},
		ledger.Detection{Time: at, Detector: "secrets", Rule: "r", Outcome: "approved", Process: ledger.Process{Name: "sh", PID: 3}},
	}
}

func TestEveryEventIsOfTheSchemaOfOCSF(t *testing.T) {
	s := loadSchema(t)
	seen := map[string]bool{}
	for line := range bytes.Lines([]byte(exported(t, record(t, append(everything(), oddities()...)...), OCSF))) {
		var e map[string]any
		d := json.NewDecoder(bytes.NewReader(line))
		d.UseNumber()
		if err := d.Decode(&e); err != nil {
			t.Fatal(err)
		}
		seen[fmt.Sprint(e["class_uid"])] = true
		v := &validator{schema: s}
		v.event(e)
		for _, w := range v.wrong {
			t.Errorf("%s\n\t%s", w, line)
		}
		if _, named := e["activity_name"]; fmt.Sprint(e["activity_id"]) == "99" && !named {
			t.Errorf("an activity without a name: %s", line)
		}
		if _, acted := e["action_id"]; slices.Contains(v.profiles, "security_control") && !acted {
			t.Errorf("a security control that does not say what it did: %s", line)
		}
	}
	if len(seen) != len(s.Classes) {
		t.Errorf("of %d classes there are events of %v", len(s.Classes), seen)
	}
}

// TestTheValidatorNoticesWhatIsWrong changes good events, one place at a time.
func TestTheValidatorNoticesWhatIsWrong(t *testing.T) {
	s := loadSchema(t)
	good := `{"class_uid":4002,"category_uid":4,"activity_id":3,"type_uid":400203,"severity_id":1,"time":1795435201000,"status_id":1,
		"metadata":{"version":"1.2.0","product":{"name":"capsem","vendor_name":"capsem"}},"dst_endpoint":{"hostname":"a.test","port":443},"src_endpoint":{"uid":"vm"},
		"http_request":{"http_method":"GET","version":"1.1"},"http_response":{"code":200}}`
	check := func(text string) []string {
		var e map[string]any
		d := json.NewDecoder(bytes.NewReader([]byte(text)))
		d.UseNumber()
		if err := d.Decode(&e); err != nil {
			t.Fatal(err)
		}
		v := &validator{schema: s}
		v.event(e)
		return v.wrong
	}
	if wrong := check(good); len(wrong) > 0 {
		t.Fatal(wrong)
	}
	for from, to := range map[string]string{
		`"severity_id":1`: `"severity_id":7`, `"severity_id":1,`: ``, `"type_uid":400203`: `"type_uid":400204`, `"class_uid":4002`: `"class_uid":4009`, `"port":443`: `"port":70000`,
		`"hostname":"a.test"`: `"hostname":"a b"`, `"code":200`: `"code":"200"`, `"time":1795435201000`: `"time":1795435201`, `"status_id":1`: `"status_id":1,"nonsense":1`,
		`"hostname":"a.test","port":443`: `"port":443`, `"vendor_name":"capsem"`: `"vendor_name":1`, `"status_id":1,`: `"status_id":1,"action_id":1,`,
	} {
		if bad := string(bytes.Replace([]byte(good), []byte(from), []byte(to), 1)); len(check(bad)) == 0 {
			t.Errorf("nothing is wrong with %s", bad)
		}
	}
}
