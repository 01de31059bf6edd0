package jsonscan

// Path is where in a document a value is: the keys and indexes that lead to it. It is only valid during the call it was given to.
type Path struct {
	steps []step
	keys  *[]byte
}

// step is one object or array that is open: the key or the index of what is read in it.
type step struct {
	array    bool
	index    int
	from, to int // of the key, in keys
	long     bool
}

// Len is how many steps lead to the value.
func (p Path) Len() int { return len(p.steps) }

// Index is the place in an array of step i; -1 when that step is a key.
func (p Path) Index(i int) int {
	if i < 0 || i >= len(p.steps) || !p.steps[i].array {
		return -1
	}
	return p.steps[i].index
}

// Key is the key of step i, empty for one in an array or one that is too long. It must not be kept.
func (p Path) Key(i int) []byte {
	if i < 0 || i >= len(p.steps) || p.steps[i].array || p.steps[i].long {
		return nil
	}
	return (*p.keys)[p.steps[i].from:p.steps[i].to]
}

// Last is the key of the last step.
func (p Path) Last() []byte { return p.Key(len(p.steps) - 1) }

// From is the path without its first n steps.
func (p Path) From(n int) Path {
	return Path{p.steps[min(n, len(p.steps)):], p.keys}
}

// Is reports whether these steps, and no others, lead to the value; "*" is any place in an array.
func (p Path) Is(steps ...string) bool { return len(steps) == len(p.steps) && p.Under(steps...) }

// Under reports whether these are the first steps.
func (p Path) Under(steps ...string) bool {
	if len(steps) > len(p.steps) {
		return false
	}
	for i, want := range steps {
		s := &p.steps[i]
		switch {
		case s.array:
			if want != "*" {
				return false
			}
		case s.long || string((*p.keys)[s.from:s.to]) != want:
			return false
		}
	}
	return true
}
