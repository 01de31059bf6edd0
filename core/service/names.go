package service

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

const (
	adjectives = `able airy amber ample apt arid avid azure bold brave breezy brief bright brisk broad calm candid cheery chief civil clean clear clever
cosy crisp daring deft eager early easy fair fancy fleet fond frank free fresh gentle glad golden grand hardy honest humble jolly keen kind lively
lucid lucky mellow merry mild modest neat nimble noble placid plucky polite prompt proud quick quiet rapid ready robust rosy sage serene sharp
silent silver sleek smart snug solid spry steady stout sturdy sunny swift tidy vivid warm wise witty zesty`
	nouns = `acorn alder anchor anvil arch aspen badger barley basil beacon beech birch bison bramble brook canyon cedar cliff clover comet copper coral
cove crane creek cricket dale delta dune eagle ember falcon fennel fern finch fjord flint forest fox garnet glade grove gull harbor hawk hazel heath
heron hill ibis iris island ivy jasper juniper kestrel lagoon lake larch lark linden lotus lynx maple marsh marten meadow mesa moss oak olive
orchid osprey otter owl pebble pine plover pond poplar quail quartz raven reef ridge river robin rowan sable sage sparrow spruce stork stream
swan tern thistle tulip tundra valley walnut willow wren yarrow`
	// tmp ends the id of every unnamed VM, so that nobody takes it for a name that stays.
	tmp = "-tmp"
)

// newID makes an id such as brisk-otter-tmp that is not taken. The adjective differs from those of the VMs in use where
// possible: ids are easier to tell apart, and to complete by their first letters.
func newID(taken func(id string) bool, inUse []string) (string, error) {
	adjs, nns := strings.Fields(adjectives), strings.Fields(nouns)
	used := map[string]bool{}
	for _, id := range inUse {
		adj, _, _ := strings.Cut(id, "-")
		used[adj] = true
	}
	for try := range 1000 {
		adj := adjs[rand.IntN(len(adjs))] //nolint:gosec // a label, no secret
		if used[adj] && try < 100 {
			continue
		}
		id := adj + "-" + nns[rand.IntN(len(nns))] + tmp //nolint:gosec // a label, no secret
		if !taken(id) {
			return id, nil
		}
	}
	return "", fmt.Errorf("choose an id: %d tries were all taken", 1000)
}
