package mcp

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// nodeSDK is where .ci/deps puts the reference SDK.
func nodeSDK(t *testing.T) string {
	t.Helper()
	root := os.Getenv("CAPSEM_TEST_CACHE")
	if root == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		root = filepath.Join(cache, "capsem-test")
	}
	dir := filepath.Join(root, "node-mcp")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "@modelcontextprotocol", "sdk")); err != nil {
		t.Fatal("the reference SDK is not there; .ci/deps test installs it: ", err)
	}
	if _, err := exec.LookPath("node"); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestTheReferenceSDKForNodeUsesIt(t *testing.T) {
	dir := nodeSDK(t)
	home, _ := newHome(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "capsem-mcp")
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", "testdata/node.mjs", dir, link)
	cmd.Env = append(os.Environ(), "CAPSEM_HOME="+home.Dir(), "HOME="+home.Dir(), "SHELL_LINE=echo from node", "EXPECTED=from node\n", "HANG=hang")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var got struct {
		Tools, Templates, Prompts, Told int
		Server                          string
	}
	if err := json.Unmarshal(out, &got); err != nil || got.Tools < len(original) || got.Templates < 5 || got.Prompts < 4 || got.Server != "capsem" {
		t.Errorf("%s: %v", out, err)
	}
}
