package budget

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"
)

const (
	// recordSize is a sector of every disk: one is written whole or not at all.
	recordSize = 512
	// maxScope bounds the name of a scope.
	maxScope = 128
	// magic begins the file, in a record of its own.
	magic = "capsem budgets 1\n"
)

var (
	errDamaged = errors.New("a record of budgets is damaged")
	crcTable   = crc32.MakeTable(crc32.Castagnoli)
)

// record is one scope: its limits, and what is used.
type record struct {
	scope Scope
	limit [periods]Amount
	used  [periods]Amount
	// held is taken by requests that have not ended.
	held [periods]Amount
	// warned is how many steps of which limit were warned of.
	warned    [periods][meters]uint8
	warnedFor [periods]Amount
	// day is of what day the day's numbers are: 20260131. resets counts how often the owner began anew.
	day     int32
	resets  uint32
	touched int64
}

func newRecord(s Scope) *record {
	r := &record{scope: s}
	for p := range r.limit {
		for m := range r.limit[p] {
			r.limit[p][m] = NoLimit
		}
	}
	return r
}

// encode writes the record into b, which is recordSize long.
func (r *record) encode(b []byte) {
	clear(b)
	b[0], b[1] = byte(r.scope.Kind), byte(len(r.scope.Name)) //nolint:gosec // at most maxScope
	copy(b[2:2+maxScope], r.scope.Name)
	at := 2 + maxScope
	for p := range r.warned {
		at += copy(b[at:], r.warned[p][:])
	}
	le := binary.LittleEndian
	le.PutUint32(b[at:], uint32(r.day)) //nolint:gosec // the same bits
	le.PutUint32(b[at+4:], r.resets)
	le.PutUint64(b[at+8:], uint64(r.touched)) //nolint:gosec // the same bits
	at += 16
	for _, group := range [][periods]Amount{r.limit, r.used, r.held, r.warnedFor} {
		for _, amount := range group {
			for _, n := range amount {
				le.PutUint64(b[at:], uint64(n)) //nolint:gosec // the same bits
				at += 8
			}
		}
	}
	le.PutUint32(b[recordSize-4:], crc32.Checksum(b[:recordSize-4], crcTable))
}

// decode reads a record.
func (r *record) decode(b []byte) error {
	le := binary.LittleEndian
	if len(b) != recordSize || crc32.Checksum(b[:recordSize-4], crcTable) != le.Uint32(b[recordSize-4:]) {
		return errDamaged
	}
	r.scope.Kind = Kind(b[0])
	if n := int(b[1]); n > maxScope || kindNames[r.scope.Kind] == "" {
		return errDamaged
	} else if name := b[2 : 2+n]; r.scope.Name != string(name) {
		r.scope.Name = string(name)
	}
	at := 2 + maxScope
	for p := range r.warned {
		at += copy(r.warned[p][:], b[at:])
	}
	r.day, r.resets, r.touched = int32(le.Uint32(b[at:])), le.Uint32(b[at+4:]), int64(le.Uint64(b[at+8:])) //nolint:gosec // the same bits
	at += 16
	for _, group := range []*[periods]Amount{&r.limit, &r.used, &r.held, &r.warnedFor} {
		for p := range group {
			for m := range group[p] {
				n := int64(le.Uint64(b[at:])) //nolint:gosec // the same bits
				if n > most || n < NoLimit {
					return errDamaged
				}
				group[p][m] = n
				at += 8
			}
		}
	}
	return nil
}

// dayOf is a day as a number.
func dayOf(t time.Time) int32 {
	y, m, d := t.Date()
	return int32(min(y, 9999)*10000 + int(m)*100 + d) //nolint:gosec // bounded
}

// turn begins a new day when one has come. A clock that was put back begins none. One that was wrong by more than a day and is put right
// leaves what is used, as of today. changed says that the record is to be written.
func (r *record) turn(now time.Time) (changed bool) {
	today := dayOf(now)
	switch {
	case today == r.day:
		return false
	case today > r.day:
		r.used[Day], r.held[Day], r.warned[Day] = Amount{}, Amount{}, [meters]uint8{}
		r.day = today
	case r.day > dayOf(now.AddDate(0, 0, 1)):
		r.day = today
	default:
		return false
	}
	return true
}
