package snapshot

import (
	"context"
	"strings"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/proto"
)

// Guest says what a guest may do with the snapshots of its workspace.
type Guest struct {
	// Prefix begins the names of snapshots that were made in the guest. What the owner has kept by hand the guest cannot remove.
	Prefix string
	// Room is what the workspace may hold; nil for no bound.
	Room Room
}

// Room bounds what a workspace holds.
type Room interface {
	// Hold takes bytes for what is about to be put into the workspace.
	Hold(n int64) error
	// Release ends that: kept says that they are in use there now.
	Release(n int64, kept bool)
}

// DoGuest does what a request of the guest asks for.
func (s *Store) DoGuest(ctx context.Context, req *proto.SnapshotRequest, g Guest) (Answer, error) {
	return s.do(ctx, req, &g)
}

// may refuses to remove what is not the guest's; nobody but a guest is refused.
func (g *Guest) may(h header) error {
	if g == nil || h.Origin != api.OriginManual || strings.HasPrefix(h.Name, g.Prefix) {
		return nil
	}
	return fault.New(fault.Forbidden, "snapshot %s was made by the owner of this VM, who alone may remove it", h.id())
}

// nameCost and dirCost are what an entry counts for besides its content.
const nameCost, dirCost = 512, 4096

// holding is what a revert has taken of the room of a guest.
type holding struct {
	room Room
	sum  int64
}

func (g *Guest) holding() *holding {
	if g == nil || g.Room == nil {
		return nil
	}
	return &holding{room: g.Room}
}

func (h *holding) take(n int64) error {
	if h == nil {
		return nil
	}
	if err := h.room.Hold(n); err != nil {
		return fault.Wrap(err, fault.NoSpace, "the workspace has no room for what is to be brought back beside what is in it").
			WithHint("remove files first; the owner of this VM can revert without that")
	}
	h.sum += n
	return nil
}

func (h *holding) release(kept bool) {
	if h != nil {
		h.room.Release(h.sum, kept)
		h.sum = 0
	}
}
