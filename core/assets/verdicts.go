package assets

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"capsem/core/atomicfile"
	"capsem/core/paths"
)

const (
	// maxVerdicts bounds what is remembered.
	maxVerdicts = 1024
	// settled is how long a file must have been left alone before its times tell whether it is written again: they are kept
	// to a few ms, on some file systems to 2 s.
	settled = 2 * time.Second
)

// verdicts remembers which files were found to have which hash. Whoever can write here can write the images too.
type verdicts struct {
	home    paths.Home
	known   map[string]string // identity to BLAKE3
	changed bool
}

func verdictFile(home paths.Home) string { return filepath.Join(home.Assets(), ".verified.json") }

// readVerdicts reads what is remembered; anything wrong with it is as nothing.
func readVerdicts(home paths.Home) *verdicts {
	v := &verdicts{home: home}
	f, err := openRegular(verdictFile(home))
	if err != nil {
		return v
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil || json.Unmarshal(text, &v.known) != nil || len(v.known) > maxVerdicts {
		v.known = nil
	}
	return v
}

// identity changes when a file is written or replaced. The change time cannot be set by a program.
func identity(info os.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%d:%d:%d:%d:%d", st.Dev, st.Ino, info.Size(), info.ModTime().UnixNano(), changeTime(st))
}

// lastChange is when a file was last written, renamed or given other rights; the future, if that is not known.
func lastChange(info os.FileInfo) time.Time {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return time.Now().Add(settled)
	}
	return time.Unix(0, changeTime(st))
}

func (v *verdicts) holds(info os.FileInfo, hash string) bool {
	id := identity(info)
	return id != "" && v.known[id] == hash
}

func (v *verdicts) add(info os.FileInfo, hash string) {
	if v.known == nil || len(v.known) >= maxVerdicts {
		v.known = map[string]string{}
	}
	if id := identity(info); id != "" && time.Since(lastChange(info)) > settled {
		v.known[id] = hash
		v.changed = true
	}
}

// save writes what is new. A failure only costs the next boot its time.
func (v *verdicts) save() {
	if !v.changed {
		return
	}
	if text, err := json.Marshal(v.known); err == nil {
		_ = atomicfile.Write(verdictFile(v.home), text, 0o600)
	}
}
