package share

import (
	"os"
	"strconv"
	"testing"
)

func TestInvalidationsOfWhatWasForgottenAreDropped(t *testing.T) {
	root := t.TempDir()
	s, err := New(Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	name := root + "/f"
	var waits *node
	for i := range 10_000 {
		if err := os.WriteFile(name, []byte(strconv.Itoa(i)), 0o600); err != nil {
			t.Fatal(err)
		}
		st, err := statAt(s.rootFD, "f")
		if err != nil {
			t.Fatal(err)
		}
		st.Ino = uint64(i) + 1e6 // another file each time
		n, _, err := s.table.attach(nil, "", &st)
		if err != nil {
			t.Fatal(err)
		}
		s.tell(inval{node: n.id})
		if i == 5000 {
			waits = n
			continue
		}
		s.table.forget(n.id, 1)
		s.tell(inval{node: n.id}) // somebody still had it
	}
	if len(s.invals.in) != 1 || len(s.invals.queue) > 100 {
		t.Errorf("%d invalidations of 1 node, %d in the queue", len(s.invals.in), len(s.invals.queue))
	}
	if i, ok := s.invals.next(); !ok || i.node != waits.id {
		t.Errorf("node %d is told of, not %d", i.node, waits.id)
	}
	if i, ok := s.invals.next(); ok {
		t.Errorf("node %d is told of", i.node)
	}
}
