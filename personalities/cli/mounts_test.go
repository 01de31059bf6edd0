package cli

import (
	"os"
	"path/filepath"
	"testing"

	"capsem/core/proto"
)

func TestMountWords(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for word, want := range map[string]proto.Mount{
		"/a/b":        {Host: "/a/b", Guest: "/mnt/b"},
		"/a/b/":       {Host: "/a/b", Guest: "/mnt/b"},
		"/a/b:ro":     {Host: "/a/b", Guest: "/mnt/b", ReadOnly: true},
		"/a:/work/":   {Host: "/a", Guest: "/work"},
		"/a:/work:rw": {Host: "/a", Guest: "/work"},
		"/a:/root/x":  {Host: "/a", Guest: "/root/x"},
		".:/work:ro":  {Host: here, Guest: "/work", ReadOnly: true},
		"..":          {Host: filepath.Dir(here), Guest: "/mnt/" + filepath.Base(filepath.Dir(here))},
	} {
		if got, err := mounts([]string{word}); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%s: %+v, %v", word, got, err)
		}
	}
	for _, word := range []string{"", ":/x", "/a:b", "/a:/x:/y", "/a:/root", "/a:/proc/1", "/a:/", "/"} {
		if got, err := mounts([]string{word}); err == nil {
			t.Errorf("%q is %+v", word, got)
		}
	}
}
