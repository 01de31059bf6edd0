package credential

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestCodexFindsAKeyInItsFileAndASignInBeforeIt(t *testing.T) {
	key, err := NewEntry(Entry{Name: "a-key"}, "sk-"+"proj-"+strings.Repeat("Xy7", 20), false)
	if err != nil {
		t.Fatal(err)
	}
	signIn, err := NewEntry(Entry{Name: "sign-in"}, codexText, true)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		all  []Entry
		mode string
	}{"key": {[]Entry{key}, "apikey"}, "both": {[]Entry{key, signIn}, "chatgpt"}} {
		got := For(c.all, "family", nil)
		n := 0
		for _, f := range got.Files {
			if f.Path != codexPath {
				continue
			}
			n++
			var file codexFile
			if err := json.Unmarshal([]byte(f.Text), &file); err != nil || file.Mode != c.mode {
				t.Errorf("%s: %v %s", name, err, f.Text)
			}
			if c.mode == "apikey" && (file.Key == nil || *file.Key != got.Env["OPENAI_API_KEY"]) {
				t.Errorf("%s: the key of the file is not that of the variable", name)
			}
		}
		if n != 1 {
			t.Errorf("%s: %d files", name, n)
		}
	}
}

func TestSettingsThatAreTheGuestsTooAreMerged(t *testing.T) {
	merged := map[string]bool{}
	for _, f := range For(entries(t), "family", nil).Files {
		merged[f.Path] = f.Merge
	}
	for path, want := range map[string]bool{".claude.json": true, ".gemini/settings.json": true, codexPath: false, ".claude/.credentials.json": false} {
		if got, there := merged[path]; got != want || !there {
			t.Errorf("%s: there %v, merged %v", path, there, got)
		}
	}
}
