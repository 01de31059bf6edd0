package cli

import (
	"strings"

	"github.com/urfave/cli/v2"

	"capsem/core/fault"
)

// nearest returns the word most like the one written, or nothing when none is like it.
func nearest(word string, words []string) string {
	word = strings.ToLower(word)
	best, bestDistance := "", max(1, len(word)/3)+1
	for _, w := range words {
		distance := edits(word, w)
		if len(word) > 1 && strings.HasPrefix(w, word) {
			distance = min(distance, 1)
		}
		if distance < bestDistance {
			best, bestDistance = w, distance
		}
	}
	return best
}

// edits is the number of letters to add, drop, change or swap with their neighbour to get from a to b.
func edits(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := last[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(change, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// dockerWords are commands that users of Docker, and of other tools like it, may try, with what does the same here.
var dockerWords = map[string]string{
	"build":    "capsem assets build (it makes the guest image)",
	"config":   "capsem help settings",
	"kill":     "capsem stop VM, or capsem delete VM, which destroys its files too",
	"pause":    "capsem suspend VM",
	"port":     "capsem forward VM [HOST:]PORT",
	"ps":       "capsem list (the processes in a VM: capsem exec VM 'ps aux')",
	"pull":     "capsem assets build (images are made here, not fetched)",
	"rename":   "capsem persist VM NAME for a temporary VM; a named one keeps its name",
	"settings": "capsem help settings",
	"start":    "capsem resume VM (a new one: capsem create)",
	"top":      "capsem jobs VM, or capsem exec VM 'ps aux'",
	"unpause":  "capsem resume VM",
}

// unknownCommand says that there is no such command, and which one may have been meant.
func unknownCommand(commands []*cli.Command, path, word string) error {
	err := fault.New(fault.Invalid, "there is no command %q", strings.TrimSpace(path+" "+word))
	if ours, known := dockerWords[word]; known && path == "" {
		return err.WithHint("capsem's is: %s", ours)
	}
	var names []string
	for _, c := range commands {
		if !c.Hidden {
			names = append(names, c.Names()...)
		}
	}
	if near := nearest(word, names); near != "" {
		return err.WithHint("did you mean capsem %s?", strings.TrimSpace(path+" "+near))
	}
	return err.WithHint("see capsem help")
}
