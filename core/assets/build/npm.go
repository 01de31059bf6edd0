package build

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// npmHook installs the programs from npm inside the image, with the image's own node. npm's settings on this machine (which
// registry, which certificates) are used and not kept.
func (j *job) npmHook() (string, error) {
	n := j.recipe.NPM
	dir := filepath.Join(j.scratch, "npm")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("prepare npm: %w", err)
	}
	command := "install"
	deps := map[string]string{}
	for _, p := range n.Packages {
		deps[p] = "latest"
	}
	if j.lock != nil && len(j.lock.NPM) > 0 {
		command = "ci"
		lock, err := exactly(j.lock.NPM, deps)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(dir, "package-lock.json"), lock, 0o644); err != nil {
			return "", fmt.Errorf("prepare npm: %w", err)
		}
	}
	manifest, err := json.MarshalIndent(map[string]any{"name": "ai-clis", "private": true, "dependencies": deps}, "", " ")
	if err != nil {
		return "", fmt.Errorf("prepare npm: %w", err)
	}
	for name, text := range map[string][]byte{"package.json": manifest, "npmrc": []byte(npmrc()), "ca.crt": certificates()} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return "", fmt.Errorf("prepare npm: %w", err)
		}
	}
	prefix := n.Prefix
	npm := "chroot \"$1\" env -i HOME=/tmp/npm PATH=/usr/sbin:/usr/bin:/sbin:/bin NPM_CONFIG_USERCONFIG=/tmp/npm/npmrc " +
		"NODE_EXTRA_CA_CERTS=/tmp/npm/ca.crt npm --prefix " + prefix + " "
	lines := []string{
		"set -e", "echo 'capsem: installing " + strings.Join(n.Programs, ", ") + "' >&2",
		"mkdir -p \"$1" + prefix + "/bin\" \"$1/tmp/npm\"", "cp " + dir + "/npmrc " + dir + "/ca.crt \"$1/tmp/npm/\"",
		"cp " + dir + "/package*.json \"$1" + prefix + "/\"",
		npm + command + " --omit=dev --ignore-scripts --no-fund --no-audit --no-update-notifier --loglevel=error >&2",
	}
	if len(n.Scripts) > 0 {
		lines = append(lines, npm+"rebuild --loglevel=error "+strings.Join(n.Scripts, " ")+" >&2")
	}
	// Debian has glibc: what was built for musl only takes room, hundreds of MB.
	lines = append(lines, "rm -rf \"$1"+prefix+"/node_modules/\"@*/*-linux-*-musl")
	for _, p := range n.Programs {
		lines = append(lines, "test -x \"$1"+prefix+"/node_modules/.bin/"+p+"\"", "ln -sf ../node_modules/.bin/"+p+" \"$1"+path.Join(prefix, "bin", p)+"\"")
	}
	lines = append(lines, "mv \"$1"+prefix+"/package-lock.json\" "+dir+"/", "rm -rf \"$1/tmp/npm\"")
	// As a file: mmdebstrap repeats a hook's text when it fails, which would bury what npm said.
	script := filepath.Join(dir, "install")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"+strings.Join(lines, "\n")+"\n"), 0o755); err != nil {
		return "", fmt.Errorf("prepare npm: %w", err)
	}
	return script, nil
}

// exactly puts the versions of a lock in the place of "latest", in deps and in the lock itself: npm ci refuses a lock once what
// that word stands for has moved on.
func exactly(lock []byte, deps map[string]string) ([]byte, error) {
	bad := func(err error) error { return fmt.Errorf("read npm's lock: %w", err) }
	var all, packages, root map[string]json.RawMessage
	if err := json.Unmarshal(lock, &all); err != nil {
		return nil, bad(err)
	}
	if err := json.Unmarshal(all["packages"], &packages); err != nil {
		return nil, bad(err)
	}
	for name := range deps {
		var p struct{ Version string }
		if err := json.Unmarshal(packages["node_modules/"+name], &p); err != nil {
			return nil, bad(fmt.Errorf("%s: %w", name, err))
		}
		deps[name] = p.Version
	}
	if err := json.Unmarshal(packages[""], &root); err != nil {
		return nil, bad(err)
	}
	var errs [4]error
	root["dependencies"], errs[0] = json.Marshal(deps)
	packages[""], errs[1] = json.Marshal(root)
	all["packages"], errs[2] = json.Marshal(packages)
	text, err := json.MarshalIndent(all, "", " ")
	errs[3] = err
	return text, errors.Join(errs[:]...)
}

// npmrc are the settings of npm on this machine that reach the registry. Addresses do not go into the lock.
func npmrc() string {
	lines := []string{"omit-lockfile-registry-resolved=true", "cafile=/tmp/npm/ca.crt"}
	for _, key := range []string{"registry", "proxy", "https-proxy"} {
		if value := npmSetting(key); value != "" {
			lines = append(lines, key+"="+value)
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

func npmSetting(key string) string {
	if value := os.Getenv("NPM_CONFIG_" + strings.ToUpper(strings.ReplaceAll(key, "-", "_"))); value != "" {
		return value
	}
	out, err := exec.Command("npm", "config", "get", key).Output() //nolint:noctx // answers at once; npm need not be there
	value := strings.TrimSpace(string(out))
	if err != nil || value == "null" || value == "undefined" || strings.ContainsAny(value, "\n ") {
		return ""
	}
	return value
}

// certificates are the authorities that this machine trusts: it may sit behind one of its own.
func certificates() []byte {
	for _, name := range []string{os.Getenv("NODE_EXTRA_CA_CERTS"), os.Getenv("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt"} {
		if name == "" {
			continue
		}
		if text, err := os.ReadFile(name); err == nil {
			return text
		}
	}
	return nil
}
