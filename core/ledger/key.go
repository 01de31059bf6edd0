package ledger

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/zeebo/blake3"

	"capsem/core/atomicfile"
	"capsem/core/fault"
)

const (
	// noFollow: a link in the place of one of our files is not followed.
	noFollow = syscall.O_NOFOLLOW | syscall.O_CLOEXEC
	// maxKeyFile bounds a key file, in bytes.
	maxKeyFile           = 8 << 10
	privateType, pubType = "PRIVATE KEY", "PUBLIC KEY"
)

// LoadOrCreateKey reads the install's signing key, and makes it on first use, mode 0600. Of several that make it at once one
// wins and all get the same.
func LoadOrCreateKey(path string) (ed25519.PrivateKey, error) {
	key, err := loadKey(path)
	if !errors.Is(err, os.ErrNotExist) {
		return key, err
	}
	if err := makeKey(path); err != nil {
		return nil, fmt.Errorf("make signing key: %w", err)
	}
	return loadKey(path)
}

func loadKey(path string) (ed25519.PrivateKey, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|noFollow, 0)
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return nil, fault.New(fault.Forbidden, "the signing key %s can be read by others", path).WithHint("run: chmod 600 %s", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	key, err := parseKey(data)
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "%s is not a signing key", path).
			WithHint("put the right file back; without it new records are signed by another key than old ones")
	}
	return key, nil
}

func parseKey(data []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != privateType {
		return nil, errors.New("no PEM block")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err //nolint:wrapcheck // by the caller
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("not an ed25519 key")
	}
	return key, nil
}

// makeKey writes a key under a temporary name and links it to its own, which fails where there is one.
func makeKey(path string) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	draft := path + ".new-" + rand.Text()
	if err := atomicfile.Write(draft, pem.EncodeToMemory(&pem.Block{Type: privateType, Bytes: der}), 0o600); err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	err = os.Link(draft, path)
	if errors.Is(err, os.ErrExist) {
		err = nil
	}
	return errors.Join(err, os.Remove(draft), atomicfile.SyncDir(filepath.Dir(path)))
}

// EncodePublicKey is the public half as PEM, for verifying elsewhere.
func EncodePublicKey(key ed25519.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pubType, Bytes: der}), nil
}

// ParsePublicKey reads what EncodePublicKey wrote.
func ParsePublicKey(data []byte) (ed25519.PublicKey, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != pubType {
		return nil, fault.New(fault.Invalid, "this is not a public key in PEM")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "this is not a public key")
	}
	key, ok := parsed.(ed25519.PublicKey)
	if !ok {
		return nil, fault.New(fault.Invalid, "this is not an ed25519 key")
	}
	return key, nil
}

// headerKey derives the key of header hashes, so that equal values look equal in all records of an install and nowhere else.
func headerKey(key ed25519.PrivateKey) *[32]byte {
	var out [32]byte
	blake3.DeriveKey("capsem 2026-11 ledger header values", key.Seed(), out[:])
	return &out
}
