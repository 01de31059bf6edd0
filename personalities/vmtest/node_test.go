//go:build vm

package vmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// nodeSDK is where .ci/npmdeps puts the reference SDK for Node.
func nodeSDK(t *testing.T) string {
	t.Helper()
	root := os.Getenv("CAPSEM_TEST_CACHE")
	if cache, err := os.UserCacheDir(); root == "" && err == nil {
		root = filepath.Join(cache, "capsem-test")
	}
	dir := filepath.Join(root, "node-mcp")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "@modelcontextprotocol", "sdk")); err != nil {
		t.Fatal("the reference SDK for Node is not there; .ci/deps test installs it: ", err)
	}
	return dir
}

// nodeForGuests is a directory with the host's Node, what it is linked with, and a script: run is how a guest that has the directory and
// the SDK's mounted runs that. The guest's image has no Node.
func nodeForGuests(t *testing.T, script string) (dir string, run []string) {
	t.Helper()
	dir = t.TempDir()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal(err)
	}
	linked, err := exec.Command("ldd", node).Output()
	if err != nil {
		t.Fatalf("ldd: %v: %s", err, linked)
	}
	copied := func(from, to string) {
		t.Helper()
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, to), text, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	copied(node, "node")
	copied(script, "script.mjs")
	loader := ""
	for word := range strings.FieldsSeq(string(linked)) {
		if filepath.IsAbs(word) {
			copied(word, filepath.Base(word))
			if strings.HasPrefix(filepath.Base(word), "ld-linux") {
				loader = filepath.Base(word)
			}
		}
	}
	if loader == "" {
		t.Fatalf("node is linked with %s", linked)
	}
	return dir, []string{"/mnt/node/" + loader, "--library-path", "/mnt/node", "/mnt/node/node", "/mnt/node/script.mjs", "/mnt/sdk"}
}
