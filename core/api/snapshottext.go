package api

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"unicode"
)

// maxShown is how many changes of one snapshot a list shows.
const maxShown = 5

// Text is the list for a reader.
func (r *SnapshotsReply) Text() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "SNAPSHOT\tKIND\tNAME\tAGE\tFILES\tCHANGES")
	for i := range r.Snapshots {
		s := &r.Snapshots[i]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n", s.Checkpoint, s.Origin, plainLine(s.Name), plainLine(s.Age), s.FilesCount, changesLine(s.Changes))
	}
	_ = w.Flush() // a strings.Builder takes everything
	for _, d := range r.Damaged {
		fmt.Fprintf(&b, "damaged, and moved aside: %s\n", plainLine(d))
	}
	if r.AutoFailed != "" {
		fmt.Fprintf(&b, "no automatic snapshot was taken: %s\n", plainLine(r.AutoFailed))
	}
	return b.String()
}

func changesLine(all []SnapshotChange) string {
	var words []string
	for i, c := range all {
		if i == maxShown {
			words = append(words, fmt.Sprintf("and %d more", len(all)-i))
			break
		}
		words = append(words, sign(c.Op)+plainLine(c.Path))
	}
	return strings.Join(words, " ")
}

// sign is what stands before a path: + new, ~ modified, - deleted.
func sign(op string) string {
	switch op {
	case OpNew, OpCreated:
		return "+"
	case OpDeleted:
		return "-"
	case OpUnchanged:
		return "="
	}
	return "~"
}

// Text is the list for a reader.
func (r *WorkspaceChangesReply) Text() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	for i := range r.Changes {
		c := &r.Changes[i]
		fmt.Fprintf(w, "%s\t%s\t%d bytes\tsince %s (%s)\n", c.Op, plainLine(c.Path), c.Size, c.Checkpoint, plainLine(c.Age))
	}
	_ = w.Flush() // a strings.Builder takes everything
	if r.Truncated {
		b.WriteString("(there are more)\n")
	}
	return b.String()
}

// Text is the versions for a reader.
func (r *SnapshotHistory) Text() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	now := "not there"
	if r.CurrentSize != nil {
		now = fmt.Sprintf("%d bytes", *r.CurrentSize)
	}
	fmt.Fprintf(w, "now\t\t\t%s\t\n", now)
	for _, v := range r.Versions {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d bytes\t%s\n", v.Checkpoint, plainLine(v.Name), plainLine(v.Age), v.Size, v.Status)
	}
	_ = w.Flush() // a strings.Builder takes everything
	return b.String()
}

// Text is the differences for a reader.
func (r *SnapshotDiffReply) Text() string {
	var b strings.Builder
	for i := range r.Files {
		f := &r.Files[i]
		switch {
		case f.Diff != "":
			b.WriteString(plainText(f.Diff))
			if !strings.HasSuffix(f.Diff, "\n") {
				b.WriteString("\n")
			}
		case f.Binary:
			fmt.Fprintf(&b, "%s%s (no text)\n", sign(f.Op), plainLine(f.Path))
		default:
			fmt.Fprintf(&b, "%s%s\n", sign(f.Op), plainLine(f.Path))
		}
	}
	if r.Truncated {
		b.WriteString("(there is more)\n")
	}
	return b.String()
}

// Text is what was done, for a reader.
func (r *SnapshotReverted) Text() string {
	path := plainLine(r.Path)
	if path == "" || path == "." {
		path = "everything"
	}
	return fmt.Sprintf("%s %s from %s; to take that back: revert to %s\n", r.Action, path, r.Checkpoint, r.Undo)
}

// Text is what was made, for a reader.
func (r *SnapshotCreated) Text() string {
	text := fmt.Sprintf("%s: %d files", r.Checkpoint, r.FilesCount)
	if r.Unchanged {
		text += ", as before"
	}
	if r.Skipped > 0 {
		text += fmt.Sprintf(", %d left out (neither files nor directories, or unreadable)", r.Skipped)
	}
	return fmt.Sprintf("%s; room for %d more\n", text, r.Available)
}

// Text is what was made, for a reader.
func (r *SnapshotCompacted) Text() string {
	return fmt.Sprintf("%s: %d files of %d snapshots; removed %s\n", r.Checkpoint, r.FilesCount, r.MergedCount, strings.Join(r.DeletedCheckpoints, " "))
}

// plainText leaves out what could drive a terminal; names and contents are a guest's.
func plainText(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return '\ufffd'
	}, strings.ToValidUTF8(s, "\ufffd"))
}

// plainLine is plainText in one line and one cell.
func plainLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return '\ufffd'
		}
		return r
	}, plainText(s))
}
