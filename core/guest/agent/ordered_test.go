//go:build linux

package agent

import (
	"io"
	"slices"
	"testing"

	"capsem/core/guest/guesttest"
	"capsem/core/link"
	"capsem/core/proto"
)

func TestWhatLeavesTheGuestWaitsForItsFiles(t *testing.T) {
	host, guest := guesttest.Sessions(t)
	var order []string
	settle := func() { order = append(order, "settle") }
	s := ordered{guest, settle}
	listener, err := host.Listen(proto.PortLifecycle)
	if err != nil {
		t.Fatal(err)
	}
	st, err := link.OpenWith(t.Context(), s, proto.StreamHeader{Port: proto.PortLifecycle}, []byte("first"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	order = append(order, "opened")
	if _, err := st.Write([]byte("second")); err != nil {
		t.Fatal(err)
	}
	order = append(order, "written")
	closer, ok := st.(link.CloseWriter)
	if !ok {
		t.Fatal("a stream that cannot end")
	}
	if err := closer.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if want := []string{"settle", "opened", "settle", "written", "settle"}; !slices.Equal(order, want) {
		t.Errorf("%v, want %v", order, want)
	}
	theirs, err := listener.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	if got, err := io.ReadAll(theirs); err != nil || string(got) != "firstsecond" {
		t.Errorf("the host reads %q, %v", got, err)
	}
}
