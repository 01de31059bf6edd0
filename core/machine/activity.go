package machine

import (
	"sync"
	"time"

	"capsem/core/fault"
)

// activity is who uses the VM: commands, terminals, file operations and forwarded connections.
type activity struct {
	mu    sync.Mutex
	users int
	last  time.Time
	shut  bool
}

// enter notes a user, who calls leave once when it is done. While the VM is being suspended nobody may enter.
func (a *activity) enter(id string) (leave func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.shut {
		return nil, fault.New(fault.Conflict, "VM %s is being suspended", id).WithHint("capsem resume %s has it go on", id)
	}
	a.users++
	var once sync.Once
	return func() { once.Do(a.leave) }, nil
}

func (a *activity) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.users--
	a.last = time.Now()
}

// touch has the time without users begin now.
func (a *activity) touch() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = time.Now()
}

// idle is how long nobody has used the VM; 0 while somebody does.
func (a *activity) idle() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.idleLocked()
}

func (a *activity) idleLocked() time.Duration {
	if a.users > 0 {
		return 0
	}
	return time.Since(a.last)
}

// close lets nobody in any more, if nobody has used the VM for that long.
func (a *activity) close(least time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if least > 0 && a.idleLocked() < least {
		return false
	}
	a.shut = true
	return true
}

func (a *activity) open() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.shut = false
}
