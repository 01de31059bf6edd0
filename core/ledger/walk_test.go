package ledger

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

func TestAWalkTellsEverythingInOrderAndWhatIsAdded(t *testing.T) {
	path, key := filepath.Join(t.TempDir(), "session.db"), testKey(t)
	w := open(t, path, testOptions(t, key))
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var want []string
	for i := range 3 * walkRows {
		at := began.Add(time.Duration(i) * time.Second)
		want = append(want, "file "+strconv.Itoa(i), "exec "+strconv.Itoa(i))
		w.Record(ExecEvent{Time: at.Add(time.Millisecond), Command: strconv.Itoa(i)})
		w.Record(FileEvent{Time: began.Add(time.Duration(3*walkRows-1-i) * time.Second), Action: "created", Path: strconv.Itoa(3*walkRows - 1 - i)})
	}
	w.Record(ModelCall{Time: began.Add(time.Hour), Model: "m", Calls: []ToolCall{{CallID: "c", Tool: "bash"}, {Tool: "edit"}}})
	want = append(want, "model [bash edit]")
	if err := w.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got []string
	tell := func(e Entry) error {
		switch e.Kind {
		case "file":
			got = append(got, "file "+e.Fields["path"].(string))
		case "exec":
			got = append(got, "exec "+e.Fields["command"].(string))
		case "model":
			names := []string{}
			for _, tool := range e.Fields["tool_calls"].([]map[string]any) {
				names = append(names, tool["tool_name"].(string))
			}
			got = append(got, "model "+fmt.Sprint(names))
		}
		return nil
	}
	if err := Walk(t.Context(), path, []string{"file", "exec", "model"}, tell); err != nil || !slices.Equal(got, want) {
		t.Fatalf("%v: %d events, want %d: %v", err, len(got), len(want), got[:min(len(got), 9)])
	}
	// What is added has any time, since a row is written at the end of what it is about.
	got = nil
	rounds := 0
	err := Follow(t.Context(), path, []string{"file"}, func() (bool, error) {
		if rounds++; rounds == 1 {
			for i := range walkRows + 5 {
				w.Record(FileEvent{Time: began.Add(-time.Hour), Action: "created", Path: "old" + strconv.Itoa(i)})
			}
			return true, w.Flush(t.Context())
		}
		return false, nil
	}, tell)
	if err != nil || len(got) != 4*walkRows+5 || got[len(got)-1] != "file old"+strconv.Itoa(walkRows+4) {
		t.Errorf("%v: %d events", err, len(got))
	}
	stop := errors.New("enough")
	if err := Walk(t.Context(), path, nil, func(Entry) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("a walk that is to stop: %v", err)
	}
	if err := Walk(t.Context(), path, []string{"nothing"}, tell); err == nil {
		t.Error("an unknown kind is no error")
	}
	closeWriter(t, w)
}
