package ledger

import (
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// MaxText bounds a name, a path or any other short text of a row, in bytes.
	MaxText = 4 << 10
	// MaxLong bounds headers, arguments and other texts that may be long.
	MaxLong = 64 << 10
	// MaxBody bounds a preview of a body, where those are kept at all.
	MaxBody = 64 << 10
	// MaxOutput bounds the preview of what a command wrote.
	MaxOutput = 1 << 10
	// maxShort bounds the texts of a request or lookup in a record that has reached its size.
	maxShort = 512
	// TimeFormat is how times are stored: RFC 3339 in UTC, of one length, so that they sort as text.
	TimeFormat = "2006-01-02T15:04:05.000000Z"
)

// ellipsis ends a text that was cut.
const ellipsis = "…"

// encoded is a row on its way to the database: table name, id, then the columns. Only the writer fills in the id.
type encoded struct {
	table  int
	values []any
	// child rows get the id of the row before them that is no child, in their first column.
	child bool
}

const (
	// idAt and columnsAt are places in encoded.values.
	idAt, columnsAt = 1, 2
)

// cells collects the values of one row. Everything stored goes through it: each text is bounded, valid UTF-8 and without NUL.
type cells struct {
	values []any
	size   int
	// bodies is how much of a body is kept; 0 is nothing.
	bodies int
	// most, if set, bounds every text.
	most int
	// headerKey makes the hashes of header values.
	headerKey *[32]byte
}

func (c *cells) add(v any, size int) {
	c.values = append(c.values, v)
	c.size += size
}

func (c *cells) int(n int64) { c.add(n, 16) }

// id is a reference or process number, absent when 0.
func (c *cells) id(n int64) {
	if n == 0 {
		c.null()
		return
	}
	c.int(n)
}

func (c *cells) null() { c.add(nil, 16) }

func (c *cells) bool(b bool) {
	if b {
		c.int(1)
		return
	}
	c.int(0)
}

// real stores what SQLite gives back unchanged: no NaN (it would be NULL), no negative zero.
func (c *cells) real(f float64) {
	switch {
	case math.IsNaN(f):
		c.null()
	case f == 0:
		c.add(float64(0), 16)
	default:
		c.add(f, 16)
	}
}

// time stores a moment; a zero one is now, so that every row has its place in time.
func (c *cells) time(t time.Time) {
	if t.IsZero() {
		t = time.Now()
	}
	c.add(stamp(t), 48)
}

func stamp(t time.Time) string {
	t = t.UTC()
	if y := t.Year(); y < 0 || y > 9999 {
		t = time.Unix(0, 0).UTC()
	}
	var b [len(TimeFormat)]byte
	return string(t.AppendFormat(b[:0], TimeFormat))
}

func (c *cells) millis(d time.Duration) { c.int(d.Milliseconds()) }

// text stores a short text; an empty one is absent.
func (c *cells) text(s string) { c.bounded(s, MaxText) }

// secretive stores a text in which somebody may have put a credential.
func (c *cells) secretive(s string, limit int) { c.bounded(RedactText(Clean(s, limit)), limit) }

// body stores as much of a body as the owner wants kept.
func (c *cells) body(s string) {
	if c.bodies <= 0 {
		c.null()
		return
	}
	c.secretive(s, min(c.bodies, MaxBody))
}

func (c *cells) bounded(s string, limit int) {
	if s == "" {
		c.null()
		return
	}
	if c.most > 0 {
		limit = min(limit, c.most)
	}
	s = Clean(s, limit)
	c.add(s, 32+len(s))
}

// Clean makes a text fit to be stored: at most limit bytes, valid UTF-8, no NUL. One that was cut ends in an ellipsis.
func Clean(s string, limit int) string {
	if len(s) > limit {
		end := ellipsis
		if limit < len(end) {
			end = ""
		}
		cut := max(limit-len(end), 0)
		for back := 0; back < utf8.UTFMax && cut > 0 && !utf8.RuneStart(s[cut]); back++ {
			cut--
		}
		// A copy: the rest must not be kept in memory.
		s = strings.Clone(strings.ToValidUTF8(s[:cut], "?") + end)
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "?")
	}
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "?")
	}
	return s
}
