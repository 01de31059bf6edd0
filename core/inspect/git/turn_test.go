package git

import (
	"context"
	"testing"
)

func TestAPlaceIsGivenBackWhenThePackIsClosedAndNobodyLooksAtIt(t *testing.T) {
	places := make(chan struct{}, 1)
	var first, second turn
	if err := first.wait(t.Context(), places); err != nil || !first.enter() {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	first.over()
	if first.enter() {
		t.Error("a closed pack is looked at")
	}
	if err := second.wait(gone, places); err == nil {
		t.Error("there were two at once")
	}
	first.leave()
	first.over()
	if len(places) != 0 {
		t.Error("the place was not given back")
	}
}
