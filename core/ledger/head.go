package ledger

import (
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/fxamacker/cbor/v2"

	"capsem/core/atomicfile"
)

// HeadFile is the name of the signed head beside a session's database.
const HeadFile = "session.head"

// SealFile is the name of the signed digest of a database that was closed, beside it. Its absence means nothing.
const SealFile = "session.seal"

// What is signed says what it is, so that no signature can stand for another.
const (
	headContext = "capsem ledger head 1"
	sealContext = "capsem ledger file 1"
)

// maxHeadFile bounds the side file, in bytes.
const maxHeadFile = 4 << 10

// Head is a signed statement: the chain of this session had this link at this place.
type Head struct {
	_ struct{} `cbor:",toarray"`
	// Session is whose chain it is.
	Session string
	// Number counts the heads of a session from 1, without gaps.
	Number uint64
	// Seq is how many rows the chain had, Hash the link of the last.
	Seq uint64
	// Hash is the link of that row.
	Hash Hash
	// Time is when it was signed, as stored.
	Time string
	// Signature is over all of the above.
	Signature []byte
}

// statement is what is signed.
type statement struct {
	_       struct{} `cbor:",toarray"`
	Context string
	Session string
	Number  uint64
	Seq     uint64
	Hash    []byte
	Time    string
}

func (h *Head) statement(context string) ([]byte, error) {
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		return nil, fmt.Errorf("encode head: %w", err)
	}
	return mode.Marshal(statement{ //nolint:wrapcheck // cannot fail: plain values
		Context: context, Session: h.Session, Number: h.Number, Seq: h.Seq, Hash: h.Hash[:], Time: h.Time,
	})
}

// sign fills in time and signature.
func (h *Head) sign(context string, key crypto.Signer, now time.Time) error {
	h.Time = stamp(now)
	text, err := h.statement(context)
	if err != nil {
		return err
	}
	if h.Signature, err = key.Sign(nil, text, crypto.Hash(0)); err != nil {
		return fmt.Errorf("sign head: %w", err)
	}
	return nil
}

// Verify reports whether the head was signed by the holder of the key.
func (h *Head) Verify(key ed25519.PublicKey) bool { return h.signed(headContext, key) }

func (h *Head) signed(context string, key ed25519.PublicKey) bool {
	text, err := h.statement(context)
	return err == nil && len(key) == ed25519.PublicKeySize && ed25519.Verify(key, text, h.Signature)
}

// errBadHead is a side file that cannot be read as a head.
var errBadHead = errors.New("not a signed head")

// encodeHead is the content of the side file.
func encodeHead(h *Head) ([]byte, error) {
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		return nil, fmt.Errorf("encode head: %w", err)
	}
	return mode.Marshal(h) //nolint:wrapcheck // cannot fail: plain values
}

// decodeHead reads a side file, hostile or not.
func decodeHead(data []byte) (*Head, error) {
	mode, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		MaxNestedLevels: 4, MaxArrayElements: 64, MaxMapPairs: 16,
	}.DecMode()
	if err != nil {
		return nil, fmt.Errorf("decode head: %w", err)
	}
	var h Head
	if len(data) > maxHeadFile {
		return nil, errBadHead
	}
	if err := mode.Unmarshal(data, &h); err != nil {
		return nil, fmt.Errorf("%w: %w", errBadHead, err)
	}
	if h.Number == 0 || len(h.Signature) != ed25519.SignatureSize || len(h.Session) > MaxText || len(h.Time) > 64 {
		return nil, errBadHead
	}
	return &h, nil
}

// headPath is where the side file of a database is.
func headPath(db string) string { return filepath.Join(filepath.Dir(db), HeadFile) }

// ReadHead reads the signed head beside a database. The signature is not checked.
func ReadHead(db string) (*Head, error) { return readSigned(headPath(db)) }

func readSigned(path string) (*Head, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|noFollow, 0)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Base(path), err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxHeadFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Base(path), err)
	}
	return decodeHead(data)
}

func writeSigned(path string, h *Head) error {
	data, err := encodeHead(h)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, data, 0o600) //nolint:wrapcheck // says what it did
}
