package export

import (
	"fmt"
	"maps"
	"path"
	"strconv"
	"strings"

	"capsem/core/buildinfo"
	"capsem/core/ledger"
)

// The version of OCSF and the classes of its events that are used.
const (
	ocsfVersion       = "1.3.0"
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
			"version": ocsfVersion, "uid": fmt.Sprintf("%s/%s/%d", o.session, r.Kind, r.ID), "correlation_uid": o.session,
			"product": object{"name": "capsem", "vendor_name": "capsem", "version": buildinfo.Version},
		},
	}
	if activity == activityOther {
		v["activity_name"] = name
	}
	if _, ok := r.Fields["duration_ms"]; ok {
		v["duration"] = r.took().Milliseconds()
	}
	return v
}

// decided adds what the policy said.
func decided(v object, r row) object {
	decision := r.text("decision")
	if decision == "" {
		return v
	}
	if m, ok := v["metadata"].(object); ok {
		m["profiles"] = []string{"security_control"}
	}
	v["action_id"], v["disposition_id"] = actionAllowed, 1
	switch decision {
	case "denied":
		v["action_id"], v["disposition_id"], v["severity_id"], v["status_id"] = actionDenied, 2, severityMedium, statusFailure
	case "error":
		v["status_id"] = statusFailure
	}
	rest := object{}
	for _, name := range []string{"matched_rule", "ask_id", "credential"} {
		if s := r.text(name); s != "" {
			rest[name] = s
		}
	}
	if len(rest) > 0 {
		v["unmapped"] = rest
	}
	for _, name := range []string{"error", "error_message", "reason"} {
		if s := r.text(name); s != "" {
			v["status_detail"] = s
			break
		}
	}
	return v
}

func (o *ocsf) device() object {
	return object{"type_id": deviceVirtual, "hostname": o.session, "uid": o.session}
}

// actor is the process in the guest that did it, as the guest says.
func actor(r row) object {
	p := object{}
	if pid := r.int("pid"); pid != 0 {
		p["pid"] = pid
	}
	if name := r.text("process_name"); name != "" {
		p["name"] = name
	}
	if len(p) == 0 {
		return object{"app_name": "guest"}
	}
	return object{"process": p}
}

var httpActivities = map[string]int{"CONNECT": 1, "DELETE": 2, "GET": 3, "HEAD": 4, "OPTIONS": 5, "POST": 6, "PUT": 7, "TRACE": 8}

func (o *ocsf) net(r row) object {
	method, to := r.text("method"), object{"hostname": r.text("domain"), "port": r.int("port")}
	if addr := r.text("remote_addr"); addr != "" {
		if i := strings.LastIndexByte(addr, ':'); i > 0 {
			to["ip"] = strings.Trim(addr[:i], "[]")
		}
	}
	traffic := object{"bytes_out": r.int("bytes_sent"), "bytes_in": r.int("bytes_received"), "bytes": r.int("bytes_sent") + r.int("bytes_received")}
	if method == "" {
		activity := 6 // traffic
		if r.text("decision") == "denied" {
			activity = 5 // refused
		}
		v := o.common(r, classNetwork, activity, "")
		maps.Copy(v, object{
			"dst_endpoint": to, "traffic": traffic, "actor": actor(r),
			"connection_info": object{"direction_id": directionOutbound, "protocol_name": "tcp", "protocol_num": 6},
		})
		return decided(v, r)
	}
	activity, known := httpActivities[method]
	if !known {
		activity = activityOther
	}
	v := o.common(r, classHTTP, activity, method)
	request := object{
		"http_method": method, "version": "1.1",
		"url": object{
			"scheme": schemeOf(r), "hostname": r.text("domain"), "port": r.int("port"), "path": r.text("path"), "query_string": r.text("query"), "url_string": urlOf(r),
		},
	}
	if r.text("conn_type") == "h2" {
		request["version"] = "2"
	}
	for _, h := range pairsOf(r.text("request_headers")) {
		if h.Name == "user-agent" {
			request["user_agent"] = h.Value
		}
	}
	maps.Copy(v, object{"http_request": request, "http_response": object{"code": r.int("status_code")}, "dst_endpoint": to, "traffic": traffic, "actor": actor(r)})
	return decided(v, r)
}

func (o *ocsf) dns(r row) object {
	v := o.common(r, classDNS, 6, "")
	maps.Copy(v, object{
		"query": object{"hostname": r.text("name"), "type": r.text("query_type")}, "rcode": r.text("response_code"), "actor": actor(r),
		"dst_endpoint": object{"name": "capsem", "port": 53},
	})
	if a := r.text("answer"); a != "" {
		v["answers"] = []object{{"rdata": a, "type": r.text("query_type")}}
	}
	return decided(v, r)
}

func (o *ocsf) audit(r row) object {
	v := o.common(r, classProcess, 1, "")
	exe := r.text("exe")
	maps.Copy(v, object{
		"device": o.device(),
		"process": object{
			"pid": r.int("pid"), "name": r.text("comm"), "cmd_line": r.text("argv"), "working_directory": r.text("cwd"),
			"file": object{"name": path.Base("/" + exe), "path": exe, "type_id": fileRegular}, "user": object{"uid": strconv.FormatInt(r.int("uid"), 10)},
			"parent_process": object{"pid": r.int("ppid"), "name": path.Base("/" + r.text("parent_exe"))},
		},
		"actor": object{"process": object{"pid": r.int("ppid")}, "user": object{"uid": strconv.FormatInt(r.int("uid"), 10)}},
	})
	if r.int("exit_code") != 0 {
		v["status_id"], v["status_code"] = statusFailure, strconv.FormatInt(r.int("exit_code"), 10)
	}
	return v
}

func (o *ocsf) exec(r row) object {
	v := o.common(r, classProcess, 1, "")
	process := object{"uid": r.text("exec_id"), "name": r.text("process_name"), "cmd_line": r.text("command")}
	if pid := r.int("pid"); pid != 0 {
		process["pid"] = pid
	}
	maps.Copy(v, object{"device": o.device(), "process": process, "actor": object{"app_name": "capsem " + r.text("source")}, "exit_code": r.int("exit_code")})
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
		"actor": actor(r), "src_endpoint": object{"hostname": o.session, "uid": o.session}, "api": object{"operation": operation, "service": object{"name": service}},
	})
	if code := r.int("status_code"); code >= 400 {
		v["status_id"], v["status_code"] = statusFailure, strconv.FormatInt(code, 10)
	}
	v = decided(v, r)
	if r.Kind == "model" {
		rest := object{}
		for _, name := range []string{"model", "input_tokens", "output_tokens", "estimated_cost_usd", "stop_reason", "trace_id", "stream"} {
			if f, ok := r.Fields[name]; ok {
				rest[name] = f
			}
		}
		v["unmapped"] = rest
	}
	return v
}

func (o *ocsf) finding(r row) object {
	v := o.common(r, classFinding, 1, "")
	v["severity_id"] = severityHigh
	maps.Copy(v, object{
		"finding_info": object{
			"uid": fmt.Sprintf("%s/%s/%d", o.session, r.Kind, r.ID), "title": r.text("detector") + ": " + r.text("rule"),
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
