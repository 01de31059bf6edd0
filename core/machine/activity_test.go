package machine

import (
	"testing"
	"time"
)

func TestAVMIsIdleOnceItsLastUserHasLeft(t *testing.T) {
	var a activity
	a.touch()
	leave, err := a.enter("vm")
	if err != nil || a.idle() != 0 || a.close(time.Nanosecond) {
		t.Fatalf("in use: %v, idle for %s", err, a.idle())
	}
	leave()
	leave() // once is enough
	if a.close(time.Hour) {
		t.Error("it was in use a moment ago")
	}
	deadline := time.Now().Add(time.Minute)
	for !a.close(time.Microsecond) {
		if time.Now().After(deadline) {
			t.Fatal("never idle")
		}
	}
	if _, err := a.enter("vm"); err == nil {
		t.Error("somebody enters a VM that is being suspended")
	}
	a.open()
	if leave, err = a.enter("vm"); err != nil {
		t.Fatal(err)
	}
	if !a.close(0) { // who asks for it at any rate gets it
		t.Error("a VM in use cannot be suspended")
	}
	leave()
}
