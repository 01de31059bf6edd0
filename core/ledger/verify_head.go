package ledger

import (
	"context"
	"database/sql"
	"fmt"
)

// headCursor goes through the signed heads beside the chain.
type headCursor struct {
	v    *verifier
	rows *sql.Rows
	// next is the head to be met, nil after the last; number is that of the one before.
	next   *Head
	number uint64
	seq    uint64
	count  int
	signed int64
	// side is the number in the side file and sideMet that the database has the same head; anchored that it has the link
	// that is expected of it.
	sideMet, anchored bool
}

func openHeads(ctx context.Context, v *verifier) (*headCursor, error) {
	rows, err := v.tx.QueryContext(ctx, "SELECT "+headColumns+" FROM heads ORDER BY number")
	if err != nil {
		return nil, fmt.Errorf("read heads: %w", err)
	}
	h := &headCursor{v: v, rows: rows}
	err = h.advance()
	return h, err
}

func (h *headCursor) bad(format string, args ...any) {
	h.v.problem(Problem{What: "head", Detail: fmt.Sprintf(format, args...)})
}

// advance reads heads up to the next one that is well-formed and properly signed.
func (h *headCursor) advance() error {
	h.next = nil
	for h.rows.Next() {
		h.count++
		head, err := scanHead(h.rows, h.v.report.Session)
		if err != nil {
			h.number++
			h.bad("signed head %d is damaged", h.number)
			continue
		}
		if head.Number != h.number+1 {
			h.bad("signed head %d is missing", h.number+1)
		}
		h.number = head.Number
		if !head.Verify(h.v.want.Key) {
			h.bad("the signature of head %d is not this install's, or the head was changed", head.Number)
			continue
		}
		if head.Seq <= h.seq {
			h.bad("signed head %d does not follow the one before", head.Number)
			continue
		}
		h.seq, h.next = head.Seq, head
		return nil
	}
	return h.rows.Err() //nolint:wrapcheck // by the caller
}

// upTo compares a link with the head that was signed over it.
func (h *headCursor) upTo(at *link) error {
	if h.v.want.Seq > 0 && at.seq == int64(h.v.want.Seq) { //nolint:gosec // a count
		h.anchored = at.hash == h.v.want.Hash
	}
	for h.next != nil && int64(h.next.Seq) <= at.seq { //nolint:gosec // a count
		switch {
		case int64(h.next.Seq) < at.seq: //nolint:gosec // a count
			h.bad("the link %d that head %d signs is missing", h.next.Seq, h.next.Number)
		case h.next.Hash != at.hash:
			h.v.problem(Problem{
				Seq: at.seq, What: "changed",
				Detail: fmt.Sprintf("the chain is not the one that was signed: something in links %d to %d was changed", h.signed+1, at.seq),
			})
		default:
			h.signed = at.seq
		}
		if side := h.v.side; side != nil && side.Number == h.next.Number {
			h.sideMet = side.Hash == h.next.Hash && side.Seq == h.next.Seq
		}
		if err := h.advance(); err != nil {
			return err
		}
	}
	return nil
}

// end checks what the heads say beyond the last link.
func (h *headCursor) end(last *link) error {
	for h.next != nil {
		h.v.problem(Problem{
			Seq: last.seq + 1, What: "truncated",
			Detail: fmt.Sprintf("head %d was signed over %d links, and there are %d", h.next.Number, h.next.Seq, last.seq),
		})
		if side := h.v.side; side != nil && side.Number == h.next.Number {
			h.sideMet = true
		}
		if err := h.advance(); err != nil {
			return err
		}
	}
	h.checkSide(last)
	return nil
}

func (h *headCursor) checkSide(last *link) {
	side := h.v.side
	switch {
	case side == nil && h.count > 1:
		// With one head the writer may have died before it wrote the file.
		h.bad("the signed head beside the record is missing")
	case side == nil:
	case side.Session != h.v.report.Session:
		h.bad("the signed head beside the record is of session %q", Clean(side.Session, 100))
	case !side.Verify(h.v.want.Key):
		h.bad("the signed head beside the record is not this install's, or was changed")
	case side.Number > h.number || int64(side.Seq) > last.seq: //nolint:gosec // a count
		h.v.problem(Problem{
			Seq: last.seq + 1, What: "truncated",
			Detail: fmt.Sprintf("the head beside the record was signed over %d links, and there are %d", side.Seq, last.seq),
		})
	case !h.sideMet:
		h.bad("the signed head beside the record is not in it")
	}
}
