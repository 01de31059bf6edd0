package export

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"

	"capsem/core/buildinfo"
	"capsem/core/ledger"
)

// The version of OCSF and the classes of its events that are used.
const (
	ocsfVersion       = "1.2.0"
	classBase         = 0
	classFile         = 1001
	classProcess      = 1007
	classFinding      = 2004
	classNetwork      = 4001
	classHTTP         = 4002
	classDNS          = 4003
	classAPI          = 6003
	activityOther     = 99
	statusSuccess     = 1
	statusFailure     = 2
	severityInfo      = 1
	severityMedium    = 3
	severityHigh      = 4
	actionAllowed     = 1
	actionDenied      = 2
	deviceVirtual     = 6
	fileRegular       = 1
	directionOutbound = 2
)

// object is a JSON object.
type object = map[string]any

// ocsf writes an event of the Open Cybersecurity Schema Framework a line.
type ocsf struct {
	out     *output
	session string
}

func (o *ocsf) kinds() []string { return nil }
func (o *ocsf) begin() error    { return nil }
func (o *ocsf) pause() error    { return nil }
func (o *ocsf) end() error      { return nil }

func (o *ocsf) event(e *ledger.Entry) error {
	r := row{e}
	var v object
	switch e.Kind {
	case "net":
		v = o.net(r)
	case "dns":
		v = o.dns(r)
	case "audit":
		v = o.audit(r)
	case "exec":
		v = o.exec(r)
	case "file":
		v = o.file(r)
	case "model":
		v = o.api(r, r.text("method")+" "+r.text("path"), r.text("provider"))
	case "mcp":
		v = o.api(r, strings.TrimSpace(r.text("method")+" "+r.text("tool_name")), r.text("server_name"))
	case "detection":
		v = o.finding(r)
	default:
		v = o.base(r)
	}
	return o.out.line(v)
}

// common is what every event has.
func (o *ocsf) common(r row, class, activity int, name string) object {
	v := object{
		"class_uid": class, "category_uid": class / 1000, "activity_id": activity, "type_uid": class*100 + activity, "severity_id": severityInfo,
		"time": r.at().UnixMilli(), "status_id": statusSuccess,
		"metadata": object{
			"version": ocsfVersion, "uid": o.uid(r), "correlation_uid": o.session,
			"product": object{"name": "capsem", "vendor_name": "capsem", "version": buildinfo.Version},
		},
	}
	if activity == activityOther {
		v["activity_name"] = name
	}
	if _, ok := r.Fields["duration_ms"]; ok {
		v["duration"] = min(r.took().Milliseconds(), math.MaxInt32)
	}
	return v
}

// decided adds what the policy said.
func decided(v object, r row) object {
	decision := r.text("decision")
	if decision == "" {
		return v
	}
	rest := unmapped(v)
	if v["class_uid"] == classAPI { // which knows nothing of policies
		rest["decision"] = decision
	} else {
		profile(v, "security_control")
		v["action_id"], v["disposition_id"] = actionAllowed, 1
	}
	switch decision {
	case "denied":
		v["severity_id"], v["status_id"] = severityMedium, statusFailure
		if _, ok := v["action_id"]; ok {
			v["action_id"], v["disposition_id"] = actionDenied, 2
		}
	case "error":
		v["status_id"] = statusFailure
	}
	for _, name := range []string{"matched_rule", "ask_id", "credential"} {
		if s := r.text(name); s != "" {
			rest[name] = s
		}
	}
	if len(rest) == 0 {
		delete(v, "unmapped")
	}
	for _, name := range []string{"error", "error_message", "reason"} {
		if s := r.text(name); s != "" {
			v["status_detail"] = s
			break
		}
	}
	return v
}

// uid names an event.
func (o *ocsf) uid(r row) string { return fmt.Sprintf("%s/%s/%d", o.session, r.Kind, r.ID) }

// profile notes that an event has the attributes of a profile.
func profile(v object, name string) {
	if m, ok := v["metadata"].(object); ok {
		list, _ := m["profiles"].([]string)
		m["profiles"] = append(list, name)
	}
}

// unmapped is what an event has for which the schema has no place.
func unmapped(v object) object {
	rest, ok := v["unmapped"].(object)
	if !ok {
		rest = object{}
		v["unmapped"] = rest
	}
	return rest
}

// hostname reports whether a text can stand where the schema wants the name of a host, or an address.
func hostname(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return false
		}
	}
	return true
}

// endpoint is a host and a port as somebody gave them.
func endpoint(host string, port int64) object {
	v := object{"name": cmp.Or(host, "unknown")}
	if hostname(host) {
		v = object{"hostname": strings.TrimSuffix(host, ".")}
	}
	if port > 0 && port <= math.MaxUint16 {
		v["port"] = port
	}
	return v
}

// process is a process by its number, if it can be one; uid is what it is called otherwise.
func process(pid int64, uid string) object {
	if pid > 0 && pid <= math.MaxInt32 {
		return object{"pid": pid}
	}
	return object{"uid": uid}
}

// guest is where connections come from.
func (o *ocsf) guest() object { return object{"uid": o.session, "name": "guest"} }

// networked adds what events of the network have.
func (o *ocsf) networked(v object, r row) {
	profile(v, "host")
	v["src_endpoint"], v["actor"], v["device"] = o.guest(), actor(r), o.device()
}

func (o *ocsf) device() object {
	return object{"type_id": deviceVirtual, "hostname": o.session, "uid": o.session}
}

// actor is the process in the guest that did it, as the guest says.
func actor(r row) object {
	name := r.text("process_name")
	p := process(r.int("pid"), "")
	if p["uid"] == "" {
		return object{"app_name": cmp.Or(name, "guest")}
	}
	if name != "" {
		p["name"] = name
	}
	return object{"process": p}
}

var httpActivities = map[string]int{"CONNECT": 1, "DELETE": 2, "GET": 3, "HEAD": 4, "OPTIONS": 5, "POST": 6, "PUT": 7, "TRACE": 8}

func (o *ocsf) net(r row) object {
	method, to := r.text("method"), endpoint(r.text("domain"), r.int("port"))
	if addr, err := netip.ParseAddrPort(r.text("remote_addr")); err == nil {
		to["ip"] = addr.Addr().WithZone("").String()
	}
	sent, received := max(0, r.int("bytes_sent")), max(0, r.int("bytes_received"))
	traffic := object{"bytes_out": sent, "bytes_in": received}
	if all := sent + received; all >= 0 {
		traffic["bytes"] = all
	}
	if method == "" {
		activity := 6 // traffic
		if r.text("decision") == "denied" {
			activity = 5 // refused
		}
		v := o.common(r, classNetwork, activity, "")
		maps.Copy(v, object{
			"dst_endpoint": to, "traffic": traffic,
			"connection_info": object{"direction_id": directionOutbound, "protocol_name": "tcp", "protocol_num": 6},
		})
		o.networked(v, r)
		return decided(v, r)
	}
	activity, known := httpActivities[method]
	if !known {
		activity = activityOther
	}
	v := o.common(r, classHTTP, activity, method)
	address := object{"scheme": schemeOf(r), "path": r.text("path"), "query_string": r.text("query")}
	for _, name := range []string{"hostname", "port"} {
		if part, ok := to[name]; ok {
			address[name] = part
		}
	}
	if full := urlOf(r); parses(full) {
		address["url_string"] = full
	}
	request := object{"version": "1.1", "url": address}
	if known { // the schema knows no others; the name of the activity is what it was
		request["http_method"] = method
	}
	if r.text("conn_type") == "h2" {
		request["version"] = "2"
	}
	for _, h := range pairsOf(r.text("request_headers")) {
		if h.Name == "user-agent" {
			request["user_agent"] = h.Value
		}
	}
	maps.Copy(v, object{"http_request": request, "http_response": object{"code": r.int("status_code")}, "dst_endpoint": to, "traffic": traffic})
	o.networked(v, r)
	return decided(v, r)
}

func parses(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.IsAbs()
}

func (o *ocsf) dns(r row) object {
	v := o.common(r, classDNS, 6, "")
	name := strings.TrimSuffix(r.text("name"), ".")
	if !hostname(name) {
		unmapped(v)["name"] = name
		name = "invalid"
	}
	maps.Copy(v, object{
		"query": object{"hostname": name, "type": r.text("query_type")}, "rcode": r.text("response_code"), "dst_endpoint": object{"name": "capsem", "port": 53},
	})
	o.networked(v, r)
	if a := r.text("answer"); a != "" {
		v["answers"] = []object{{"rdata": a, "type": r.text("query_type")}}
	}
	return decided(v, r)
}

func (o *ocsf) audit(r row) object {
	v := o.common(r, classProcess, 1, "")
	user := object{"uid": strconv.FormatInt(r.int("uid"), 10)}
	p, parent := process(r.int("pid"), o.uid(r)), process(r.int("ppid"), "unknown")
	maps.Copy(p, object{"name": r.text("comm"), "cmd_line": r.text("argv"), "user": user})
	if exe := r.text("exe"); exe != "" {
		p["file"] = object{"name": path.Base("/" + exe), "path": exe, "type_id": fileRegular}
	}
	if exe := r.text("parent_exe"); exe != "" {
		parent["name"] = path.Base("/" + exe)
	}
	p["parent_process"] = parent
	maps.Copy(v, object{"device": o.device(), "process": p, "actor": object{"process": process(r.int("ppid"), "unknown"), "user": user}})
	if dir := r.text("cwd"); dir != "" {
		unmapped(v)["working_directory"] = dir
	}
	if r.int("exit_code") != 0 {
		v["status_id"], v["status_code"] = statusFailure, strconv.FormatInt(r.int("exit_code"), 10)
	}
	return v
}

func (o *ocsf) exec(r row) object {
	v := o.common(r, classProcess, 1, "")
	p := process(r.int("pid"), "")
	maps.Copy(p, object{"uid": cmp.Or(r.text("exec_id"), o.uid(r)), "name": r.text("process_name"), "cmd_line": r.text("command")})
	maps.Copy(v, object{"device": o.device(), "process": p, "actor": object{"app_name": strings.TrimSpace("capsem " + r.text("source"))}, "exit_code": r.int("exit_code")})
	if r.int("exit_code") != 0 {
		v["status_id"] = statusFailure
	}
	return v
}

func (o *ocsf) file(r row) object {
	activity, ok := map[string]int{"created": 1, "modified": 3, "deleted": 4, "renamed": 5}[r.text("action")]
	if !ok {
		activity = activityOther
	}
	v := o.common(r, classFile, activity, r.text("action"))
	file := object{"name": path.Base("/" + r.text("path")), "path": r.text("path"), "type_id": 0}
	if size := r.int("size"); size >= 0 {
		file["size"] = size
	}
	maps.Copy(v, object{"device": o.device(), "actor": actor(r), "file": file})
	return v
}

func (o *ocsf) api(r row, operation, service string) object {
	v := o.common(r, classAPI, activityOther, "Call")
	maps.Copy(v, object{
		"actor": actor(r), "src_endpoint": o.guest(), "api": object{"operation": operation, "service": object{"name": service}},
	})
	if code := r.int("status_code"); code >= 400 {
		v["status_id"], v["status_code"] = statusFailure, strconv.FormatInt(code, 10)
	}
	v = decided(v, r)
	if r.Kind == "model" {
		rest := unmapped(v)
		for _, name := range []string{"model", "input_tokens", "output_tokens", "estimated_cost_usd", "stop_reason", "trace_id", "stream"} {
			if f, ok := r.Fields[name]; ok {
				rest[name] = f
			}
		}
	}
	return v
}

func (o *ocsf) finding(r row) object {
	v := o.common(r, classFinding, 1, "")
	v["severity_id"] = severityHigh
	maps.Copy(v, object{
		"finding_info": object{
			"uid": o.uid(r), "title": r.text("detector") + ": " + r.text("rule"),
			"desc": "found in the " + r.text("place") + " of traffic with " + r.text("domain") + ": " + r.text("outcome"),
		},
		"unmapped": r.Fields,
	})
	return v
}

// base is an event for which there is no class.
func (o *ocsf) base(r row) object {
	v := o.common(r, classBase, activityOther, r.Kind)
	v["message"], v["unmapped"] = strings.TrimSpace(r.Kind+" "+r.text("event")+r.text("action")+r.text("status")), r.Fields
	return v
}
