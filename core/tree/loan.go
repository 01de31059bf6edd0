package tree

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// loan is a directory of ours that its owner may not look into, and which is walked all the same: it has the permissions for that until
// the last one who walks it is done.
type loan struct {
	key       [2]uint64
	own, lent uint32
	users     int
}

// loans are those of this process, by device and inode. The lock is held while a mode is not the file's own but for a moment, too.
var loans = struct {
	sync.RWMutex
	of map[[2]uint64]*loan
}{of: map[[2]uint64]*loan{}}

// borrow lets the owner look into the directory until giveBack.
func (d *Dir) borrow() error {
	loans.Lock()
	defer loans.Unlock()
	var st unix.Stat_t
	if err := unix.Fstat(int(d.f.Fd()), &st); err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	key := [2]uint64{uint64(st.Dev), st.Ino} //nolint:unconvert // the types differ by system
	l := loans.of[key]
	if l == nil {
		mode, euid := uint32(st.Mode)&0o7777, os.Geteuid() //nolint:unconvert // the types differ by system
		if mode&0o500 == 0o500 || euid == 0 || int(st.Uid) != euid {
			return nil
		}
		l = &loan{key: key, own: mode, lent: mode | 0o500}
		if err := unix.Fchmod(int(d.f.Fd()), l.lent); err != nil {
			return err //nolint:wrapcheck // by the caller
		}
		loans.of[key] = l
	}
	l.users++
	d.loan = l
	return nil
}

// giveBack gives the directory its own mode again, unless somebody has set another meanwhile.
func (d *Dir) giveBack() error {
	l := d.loan
	if l == nil {
		return nil
	}
	loans.Lock()
	defer loans.Unlock()
	d.loan = nil
	if l.users--; l.users > 0 {
		return nil
	}
	delete(loans.of, l.key)
	var st unix.Stat_t
	err := unix.Fstat(int(d.f.Fd()), &st)
	if err != nil || uint32(st.Mode)&0o7777 != l.lent { //nolint:unconvert // the types differ by system
		return err //nolint:wrapcheck // by the caller
	}
	return unix.Fchmod(int(d.f.Fd()), l.own) //nolint:wrapcheck // by the caller
}
