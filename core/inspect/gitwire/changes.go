package gitwire

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

const (
	// MaxPaths bounds the paths that are told as changed, maxPath how long one is, maxTreeDepth how deep, maxSteps how many trees are compared
	// at a time, and maxParsed how much of trees is read in all, in bytes: commits cost the guest less than to compare them costs the host.
	MaxPaths     = 10_000
	maxPath      = 4096
	maxTreeDepth = 128
	maxSteps     = 200_000
	maxParsed    = 256 << 20
	modeTree     = "40000"
)

// changes collects the paths that differ between trees.
type changes struct {
	o     *Objects
	paths map[string]bool
	steps int
}

// diff adds the paths in which two trees differ; an empty id is no tree.
func (c *changes) diff(prefix, from, to string, depth int) error {
	if from == to {
		return nil
	}
	if c.steps++; c.steps > maxSteps || depth > maxTreeDepth {
		return fmt.Errorf("%w: too many trees, or too deep ones", ErrTooMuch)
	}
	was, err := c.o.tree(from)
	if err != nil {
		return err
	}
	is, err := c.o.tree(to)
	if err != nil {
		return err
	}
	for name, e := range is {
		if err := c.entry(prefix+name, was[name], e, depth); err != nil {
			return err
		}
	}
	for name, e := range was {
		if _, still := is[name]; !still {
			if err := c.entry(prefix+name, e, entry{}, depth); err != nil {
				return err
			}
		}
	}
	return nil
}

// entry compares what stands at one path.
func (c *changes) entry(path string, was, is entry, depth int) error {
	if was == is {
		return nil
	}
	if len(path) > maxPath {
		return fmt.Errorf("%w: a path of %d bytes", ErrTooMuch, len(path))
	}
	var trees [2]string
	file := false
	for i, e := range []entry{was, is} {
		switch e.mode {
		case modeTree:
			trees[i] = e.id
		case "":
		default:
			file = true
		}
	}
	if file {
		if len(c.paths) >= MaxPaths {
			return fmt.Errorf("%w: more than %d paths", ErrTooMuch, MaxPaths)
		}
		c.paths[path] = true
	}
	return c.diff(path+"/", trees[0], trees[1], depth+1)
}

// commitTree is the tree of a commit that has to be known.
func (o *Objects) commitTree(id string) (string, error) {
	c, ok := o.commits[id]
	if !ok || c.Tree == "" {
		return "", fmt.Errorf("%w: that of commit %.12s", ErrMissing, id)
	}
	return c.Tree, nil
}

// Between gives the paths in which the trees of two commits differ.
func (o *Objects) Between(from, to string) ([]string, error) {
	var trees [2]string
	for i, id := range []string{from, to} {
		var err error
		if trees[i], err = o.commitTree(id); err != nil {
			return nil, err
		}
	}
	c := &changes{o: o, paths: map[string]bool{}}
	err := c.diff("", trees[0], trees[1], 0)
	return slices.Sorted(maps.Keys(c.paths)), err
}

// By gives the paths that a commit itself changes: those that are as in none of its parents.
func (o *Objects) By(id string) ([]string, error) {
	commit, ok := o.commits[id]
	if !ok {
		return nil, fmt.Errorf("%w: commit %.12s", ErrMissing, id)
	}
	if commit.Tree == "" {
		return nil, errors.New("a commit has no tree")
	}
	parents := []string{""}
	if len(commit.Parents) > 0 {
		parents = parents[:0]
		for _, p := range commit.Parents {
			tree, err := o.commitTree(p)
			if err != nil {
				return nil, err
			}
			parents = append(parents, tree)
		}
	}
	var all map[string]bool
	for _, p := range parents {
		c := &changes{o: o, paths: map[string]bool{}}
		if err := c.diff("", p, commit.Tree, 0); err != nil {
			return nil, err
		}
		if all == nil {
			all = c.paths
			continue
		}
		maps.DeleteFunc(all, func(path string, _ bool) bool { return !c.paths[path] })
	}
	return slices.Sorted(maps.Keys(all)), nil
}
