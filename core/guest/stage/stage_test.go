//go:build linux

package stage

import (
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"capsem/core/proto"
)

func TestAReportIsReadAsItWasSaved(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "boot")
	timer := NewTimer()
	timer.Mark("mounts")
	timer.Fail("sysctl", errors.New("two\nlines and a \x00 byte"))
	if err := timer.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, Report{Stages: timer.report.Stages, Failed: timer.report.Failed, ReadyNS: int64(timer.last)}) {
		t.Errorf("got %+v", got)
	}
	if want := "sysctl: two lines and a   byte"; got.Failed[0] != want {
		t.Errorf("failed %q, want %q", got.Failed[0], want)
	}
	if all := got.WithAgent(); len(all) != 3 || all[2].Name != "agent" || all[2].DurationUS < 0 {
		t.Errorf("with the agent: %+v", all)
	}
}

func TestNoReportIsEmpty(t *testing.T) {
	t.Parallel()
	got, err := Load(filepath.Join(t.TempDir(), "none"))
	if err != nil || len(got.WithAgent()) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestDamagedReportsAreRefused(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"unknown line": "what 1\n", "no number": "ready soon\n", "stage without time": "stage mounts\n",
		"too many": strings.Repeat("stage a 1\n", proto.MaxBootStages+1), "too many failed": strings.Repeat("failed a\n", proto.MaxBootStages+1),
	} {
		if got, err := Parse(text); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestATimerNeverExceedsTheProtocol(t *testing.T) {
	t.Parallel()
	timer := NewTimer()
	for range 100 {
		timer.Mark("step")
		timer.Fail("step", errors.New(strings.Repeat("é", 300)))
	}
	path := filepath.Join(t.TempDir(), "boot")
	if err := timer.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(got.WithAgent()); n > proto.MaxBootStages {
		t.Errorf("%d stages", n)
	}
	for _, f := range got.Failed {
		if len(f) > 200 || !strings.HasPrefix(f, "step: é") {
			t.Errorf("failed step of %d bytes: %q", len(f), f)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("ready 1\nstage mounts 5\nfailed x: y\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Parse(text)
		if err == nil && (len(r.Stages) > proto.MaxBootStages || len(r.Failed) > proto.MaxBootStages) {
			t.Errorf("%d stages, %d failed", len(r.Stages), len(r.Failed))
		}
	})
}
