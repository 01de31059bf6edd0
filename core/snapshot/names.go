package snapshot

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"capsem/core/api"
	"capsem/core/fault"
)

// home is the workspace as the guest names it.
const home = "/root"

var snapshotName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func checkName(name string) error {
	if !snapshotName.MatchString(name) {
		return fault.New(fault.Invalid, "%.80q is not a name for a snapshot", name).WithHint("use 1-64 letters, digits, - or _")
	}
	return nil
}

// cleanPath makes a path of the guest, /root/... or relative to it, one of ours; "" is the whole workspace.
func cleanPath(path string) (string, error) {
	rest := path
	if strings.HasPrefix(path, "/") {
		var ok bool
		if rest, ok = strings.CutPrefix(path, home); !ok || rest != "" && rest[0] != '/' {
			return "", fault.New(fault.Invalid, "%.200q is outside of the workspace", path).WithHint("snapshots hold what is in %s", home)
		}
	}
	if strings.IndexByte(rest, 0) >= 0 {
		return "", fault.New(fault.Invalid, "%.200q is not a path", path)
	}
	var parts []string
	for part := range strings.SplitSeq(rest, "/") {
		switch part {
		case "", ".":
		case "..":
			return "", fault.New(fault.Invalid, "%.200q must not contain ..", path).WithHint("give the path from %s on", home)
		default:
			parts = append(parts, part)
		}
	}
	clean := strings.Join(parts, "/")
	if clean != "" && !validPath(clean) {
		return "", fault.New(fault.Invalid, "%.200q is too long for a path", path)
	}
	return clean, nil
}

// shown is a path as it is named to a user.
func shown(path string) string {
	if path == "" {
		return home
	}
	return fmt.Sprintf("%.300q", path)
}

func parseID(id string) (int, error) {
	if text, ok := strings.CutPrefix(id, "cp-"); ok {
		if slot, err := strconv.Atoi(text); err == nil && slot >= 0 && slot <= maxSlot && idOf(slot) == id {
			return slot, nil
		}
	}
	return 0, fault.New(fault.Invalid, "%.80q is not a snapshot", id).WithHint("snapshots are named cp-0, cp-1 and so on; list them first")
}

// age is how long ago something was, in one unit.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", max(d, 0)/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", d/time.Hour)
	}
	return fmt.Sprintf("%dd ago", d/(24*time.Hour))
}

// change is how an entry is named in an answer.
func change(e *entry, op string) api.SnapshotChange {
	c := api.SnapshotChange{Path: e.path, Op: op, Size: e.size, IsSymlink: e.kind == kindSymlink, IsDir: e.kind == kindDir}
	if c.IsDir {
		c.Size = 0
	}
	if !utf8.ValidString(e.path) {
		c.PathRaw = []byte(e.path)
	}
	return c
}
