package snapshot

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"capsem/core/fault"
)

// objectCost is what an object counts for besides its bytes.
const objectCost = 512

// objects are the stored contents, each once, in files named by their hash: objects/<first two digits>/<hash>. Nothing ever writes to one.
type objects struct {
	dir, temp, damaged int
	before             func(step string)
	noClone            atomic.Bool
	counter            atomic.Uint64

	mu    sync.Mutex
	known map[hash]*object
	dirs  map[string]bool
	used  int64
	limit int64
}

// object is one content. One that is lost is needed but not there, or not what its name says.
type object struct {
	refs int
	cost int64
	lost bool
}

func objectName(h hash) string {
	name := h.String()
	return name[:2] + "/" + name
}

func (o *objects) has(h hash) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	obj := o.known[h]
	return obj != nil && !obj.lost
}

// charge takes from the quota.
func (o *objects) charge(n int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n > o.limit-o.used {
		return fault.New(fault.NoSpace, "the snapshots of this VM may take no more than %d MiB", o.limit>>20).
			WithHint("delete or compact snapshots, or raise their limit")
	}
	o.used += n
	return nil
}

func (o *objects) refund(n int64) {
	o.mu.Lock()
	o.used -= n
	o.mu.Unlock()
}

// put stores the first size bytes of a file, unless that content is stored already. It is not durable before the next sync.
func (o *objects) put(ctx context.Context, src *os.File, size int64) (hash, error) {
	cost := int64(0)
	charge := func(n int64) error {
		err := o.charge(n)
		if err == nil {
			cost += n
		}
		return err
	}
	name := o.tempName()
	h, err := func() (hash, error) {
		if err := charge(objectCost); err != nil {
			return hash{}, err
		}
		o.before("write object")
		f, h, err := o.duplicate(ctx, src, size, o.temp, name, charge)
		if err != nil {
			return h, err
		}
		if err := errors.Join(f.Chmod(0o400), f.Close()); err != nil {
			return h, errors.Join(err, unix.Unlinkat(o.temp, name, 0))
		}
		return h, nil
	}()
	if err != nil {
		o.refund(cost)
		return h, err
	}
	return h, o.publish(name, h, cost)
}

func (o *objects) tempName() string { return "t-" + strconv.FormatUint(o.counter.Add(1), 10) }

// publish gives a temporary file its name as an object.
func (o *objects) publish(name string, h hash, cost int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	obj := o.known[h]
	if obj != nil && !obj.lost {
		o.used -= cost
		return unix.Unlinkat(o.temp, name, 0)
	}
	to := objectName(h)
	o.before("name object")
	var err error
	if sub := to[:2]; !o.dirs[sub] {
		if err = unix.Mkdirat(o.dir, sub, 0o700); errors.Is(err, unix.EEXIST) {
			err = nil
		}
		o.dirs[sub] = err == nil
	}
	if err == nil {
		err = unix.Renameat(o.temp, name, o.dir, to)
	}
	if err != nil {
		o.used -= cost
		return fmt.Errorf("name object: %w", errors.Join(err, unix.Unlinkat(o.temp, name, 0)))
	}
	if obj == nil {
		obj = &object{}
		o.known[h] = obj
	}
	obj.cost, obj.lost = cost, false
	return nil
}

// use counts the contents that entries need; release takes that back and removes what nobody needs any more.
func (o *objects) use(entries []entry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range entries {
		if entries[i].kind != kindFile {
			continue
		}
		obj := o.known[entries[i].hash]
		if obj == nil {
			obj = &object{lost: true}
			o.known[entries[i].hash] = obj
		}
		obj.refs++
	}
}

func (o *objects) release(entries []entry) error {
	o.mu.Lock()
	for i := range entries {
		if obj := o.known[entries[i].hash]; obj != nil && entries[i].kind == kindFile {
			obj.refs--
		}
	}
	o.mu.Unlock()
	return o.collect()
}

// collect removes the objects that nobody needs.
func (o *objects) collect() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var failed []error
	for h, obj := range o.known {
		if obj.refs > 0 {
			continue
		}
		o.before("remove object")
		if err := unix.Unlinkat(o.dir, objectName(h), 0); err != nil && !errors.Is(err, unix.ENOENT) {
			failed = append(failed, err)
			continue
		}
		o.used -= obj.cost
		delete(o.known, h)
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("remove objects: %w", err)
	}
	return nil
}

// open opens an object. Whoever uses its content checks its hash.
func (o *objects) open(h hash) (*os.File, error) {
	fd, err := unix.Openat(o.dir, objectName(h), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, o.lost(h, "is missing")
	}
	if err != nil {
		return nil, fmt.Errorf("open object %s: %w", h, err)
	}
	return os.NewFile(uintptr(fd), h.String()), nil
}

// spoiled moves an object aside that does not hold what its name says, so that it is never used and can be stored anew.
func (o *objects) spoiled(h hash) error {
	o.before("move object aside")
	if err := unix.Renameat(o.dir, objectName(h), o.damaged, h.String()); err != nil {
		return fmt.Errorf("object %s is damaged and cannot be moved aside: %w", h, err)
	}
	return o.lost(h, "is damaged and was moved to damaged/")
}

func (o *objects) lost(h hash, what string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if obj := o.known[h]; obj != nil {
		o.used -= obj.cost
		obj.cost, obj.lost = 0, true
	}
	return fault.New(fault.Unavailable, "a stored content, object %s, %s", h, what).WithHint("use another snapshot of this file")
}

// load learns which objects there are, and removes what is none.
func (o *objects) load() error {
	subs, err := list(o.dir, "")
	if err != nil {
		return fmt.Errorf("list objects: %w", err)
	}
	for _, sub := range subs {
		names, err := list(o.dir, sub)
		if errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("list objects: %w", err)
		}
		o.dirs[sub] = true
		for _, name := range names {
			st, err := statAt(o.dir, sub+"/"+name)
			if err != nil {
				return fmt.Errorf("list objects: %w", err)
			}
			raw, err := hex.DecodeString(name)
			if err != nil || len(raw) != len(hash{}) || !strings.HasPrefix(name, sub) || st.kind != kindFile {
				continue
			}
			cost := min(st.blocks*512, pages(st.size)) + objectCost
			o.known[hash(raw)], o.used = &object{cost: cost}, o.used+cost
		}
	}
	return nil
}

// list returns the names in a directory of the store.
func list(dir int, sub string) ([]string, error) {
	if sub == "" {
		sub = "."
	}
	fd, err := unix.Openat(dir, sub, dirFlags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), sub)
	defer f.Close()
	return f.Readdirnames(-1)
}
