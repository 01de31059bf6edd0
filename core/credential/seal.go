package credential

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/zeebo/blake3"
	"golang.org/x/crypto/chacha20poly1305"
)

// keySize is the length of the key that seals the store.
const keySize = chacha20poly1305.KeySize

// sealVersion is the version of the sealed file.
const sealVersion = 1

// sealed is the file: what is in it cannot be read, or changed unseen, without the key.
type sealed struct {
	Version int `json:"version"`
	// Key says where the key is, KeyID which it is.
	Key   string `json:"key"`
	KeyID string `json:"key_id"`
	Nonce []byte `json:"nonce"`
	Data  []byte `json:"data"`
}

var (
	// errOtherKey is a file that was sealed with another key.
	errOtherKey = errors.New("it was sealed with another key")
	// errDamaged is a file that is no sealed store, or was changed.
	errDamaged = errors.New("it is damaged")
	// errNewer is a file of a later version.
	errNewer = errors.New("it is of a newer version of capsem")
)

// keyID names a key without telling anything of it.
func keyID(key []byte) string {
	out := make([]byte, 8)
	blake3.DeriveKey("capsem credential store: name of a key", key, out)
	return hex.EncodeToString(out)
}

func aead(key []byte) (cipher.AEAD, error) {
	a, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, fmt.Errorf("use key: %w", err)
	}
	return a, nil
}

// header is what the seal covers besides the data.
func (s *sealed) header() []byte {
	return fmt.Appendf(nil, "capsem credentials %d %s %s", s.Version, s.Key, s.KeyID)
}

// seal makes the file's text.
func seal(plain, key []byte, source string) ([]byte, error) {
	a, err := aead(key)
	if err != nil {
		return nil, err
	}
	s := sealed{Version: sealVersion, Key: source, KeyID: keyID(key), Nonce: make([]byte, a.NonceSize())}
	_, _ = rand.Read(s.Nonce) // never fails
	s.Data = a.Seal(nil, s.Nonce, plain, s.header())
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode sealed file: %w", err)
	}
	return append(text, '\n'), nil
}

// parseSealed reads the outside of the file.
func parseSealed(text []byte) (*sealed, error) {
	var s sealed
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, errDamaged
	}
	if s.Version > sealVersion {
		return nil, errNewer
	}
	if s.Version < 1 || s.KeyID == "" || (s.Key != keyInFile && s.Key != keyInKeychain) || len(s.Nonce) != chacha20poly1305.NonceSizeX {
		return nil, errDamaged
	}
	return &s, nil
}

// open gives what is in it.
func (s *sealed) open(key []byte) ([]byte, error) {
	if keyID(key) != s.KeyID {
		return nil, errOtherKey
	}
	a, err := aead(key)
	if err != nil {
		return nil, err
	}
	plain, err := a.Open(nil, s.Nonce, s.Data, s.header())
	if err != nil {
		return nil, errDamaged
	}
	return plain, nil
}
