package build

import (
	"encoding/json"
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
		if err := os.WriteFile(filepath.Join(dir, "package-lock.json"), j.lock.NPM, 0o644); err != nil {
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
	return strings.Join(append(lines, "mv \"$1"+prefix+"/package-lock.json\" "+dir+"/", "rm -rf \"$1/tmp/npm\""), "\n"), nil
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
