package mitm

import (
	"sync"
	"time"
)

const (
	// maxSpoken bounds the hosts of which it is remembered what they speak, spokenTime for how long.
	maxSpoken  = 4096
	spokenTime = 10 * time.Minute
)

// place is a port of a host.
type place struct {
	host string
	port uint16
}

// spoken remembers which protocol hosts speak over TLS.
type spoken struct {
	mu  sync.Mutex
	all map[place]spokenBy
}

type spokenBy struct {
	proto string
	until time.Time
}

func newSpoken() *spoken { return &spoken{all: map[place]spokenBy{}} }

func (s *spoken) get(to place) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	by, ok := s.all[to]
	return by.proto, ok && time.Now().Before(by.until)
}

func (s *spoken) set(to place, proto string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) >= maxSpoken {
		s.shrink()
	}
	s.all[to] = spokenBy{proto, time.Now().Add(spokenTime)}
}

// shrink makes room: what is out of date goes, and if that is nothing, anything.
func (s *spoken) shrink() {
	now := time.Now()
	for to, by := range s.all {
		if now.After(by.until) {
			delete(s.all, to)
		}
	}
	for to := range s.all {
		if len(s.all) < maxSpoken {
			return
		}
		delete(s.all, to)
	}
}
