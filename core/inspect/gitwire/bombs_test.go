package gitwire

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// made takes an object in and gives its id.
func (o *Objects) made(t *testing.T, kind byte, data string) string {
	t.Helper()
	if err := o.add(kind, []byte(data)); err != nil {
		t.Fatal(err)
	}
	return hashed(kind, []byte(data), o.idBytes)
}

func entryText(mode, name, id string) string {
	raw, _ := hex.DecodeString(id)
	return mode + " " + name + "\x00" + string(raw)
}

func TestPathsThatWouldFillTheMemoryAreNotTold(t *testing.T) {
	o := NewObjects(20)
	var files strings.Builder
	for i := range MaxPaths - 1 {
		files.WriteString(entryText("100644", fmt.Sprintf("f%d", i), one))
	}
	inner := o.made(t, typeTree, files.String())
	outer := o.made(t, typeTree, entryText("40000", strings.Repeat("x", maxPath), inner))
	commit := o.made(t, typeCommit, "tree "+outer+"\n\n")
	if _, err := o.By(commit); !errors.Is(err, ErrTooMuch) {
		t.Errorf("paths of %d bytes in all: %v", (MaxPaths-1)*maxPath, err)
	}
}

func TestManyCommitsOfLargeTreesDoNotKeepTheHostBusy(t *testing.T) {
	o := NewObjects(20)
	var trees [2]string
	for i := range trees {
		var files strings.Builder
		for n := range 20_000 {
			files.WriteString(entryText("100644", fmt.Sprintf("f%d", n), one))
		}
		files.WriteString(entryText("100644", fmt.Sprintf("only%d", i), two))
		trees[i] = o.made(t, typeTree, files.String())
	}
	o.parsed = maxParsed - 32<<20 // the rest of it would take seconds
	var err error
	done := 0
	parent := ""
	for ; done < 20_000 && err == nil; done++ {
		id := o.made(t, typeCommit, "tree "+trees[done%2]+"\n"+parent+fmt.Sprintf("\n%d", done))
		if parent != "" {
			_, err = o.By(id)
		}
		parent = "parent " + id + "\n"
	}
	if !errors.Is(err, ErrTooMuch) {
		t.Errorf("%d commits were compared: %v", done, err)
	}
}
