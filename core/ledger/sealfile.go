package ledger

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/zeebo/blake3"
)

func sealPath(db string) string { return filepath.Join(filepath.Dir(db), SealFile) }

// sealFile signs the digest of a database that was closed: then any byte of it that changes is found, be it in no row at all.
func sealFile(db string, last *Head, key ed25519.PrivateKey) error {
	if last.Number == 0 {
		return nil
	}
	if _, err := os.Lstat(db + "-wal"); !errors.Is(err, os.ErrNotExist) {
		// Somebody reads: the log could not be folded back, and whoever does it later changes the file.
		return nil
	}
	size, digest, err := digestOf(db)
	if err != nil {
		return fmt.Errorf("seal record: %w", err)
	}
	h := Head{Session: last.Session, Number: last.Number, Seq: size, Hash: digest}
	if err := h.sign(sealContext, key, time.Now()); err != nil {
		return err
	}
	return writeSigned(sealPath(db), &h)
}

func digestOf(path string) (uint64, Hash, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|noFollow, 0)
	if err != nil {
		return 0, Hash{}, err //nolint:wrapcheck // by the caller
	}
	defer f.Close()
	h := blake3.New()
	n, err := io.CopyBuffer(h, struct{ io.Reader }{f}, make([]byte, 1<<20))
	var sum Hash
	h.Sum(sum[:0])
	return uint64(n), sum, err //nolint:wrapcheck,gosec // by the caller; a length
}

// checkFile checks what is outside the rows: by the signed digest where there is one, else by SQLite's own check, which sees
// indexes that do not fit their tables.
func (v *verifier) checkFile(ctx context.Context) error {
	seal, err := readSigned(sealPath(v.path))
	if errors.Is(err, os.ErrNotExist) {
		return v.checkPages(ctx)
	}
	if err != nil || !seal.signed(sealContext, v.want.Key) || seal.Session != v.report.Session {
		v.problem(Problem{What: "file", Detail: "the signed digest beside the record was changed or is not its own"})
		return v.checkPages(ctx)
	}
	size, digest, err := digestOf(v.path)
	if err != nil {
		return fmt.Errorf("verify record: %w", err)
	}
	if size != seal.Seq || digest != seal.Hash {
		v.problem(Problem{What: "file", Detail: "the file is not, byte for byte, what was closed at " + seal.Time})
		return v.checkPages(ctx)
	}
	return nil
}

func (v *verifier) checkPages(ctx context.Context) error {
	rows, err := v.tx.QueryContext(ctx, "PRAGMA integrity_check(10)")
	if err != nil {
		return fmt.Errorf("check pages: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return fmt.Errorf("check pages: %w", err)
		}
		if text != "ok" {
			v.problem(Problem{What: "file", Detail: "SQLite says: " + Clean(text, 300)})
		}
	}
	return rows.Err() //nolint:wrapcheck // by the caller
}
