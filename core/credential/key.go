package credential

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/zalando/go-keyring"

	"capsem/core/atomicfile"
	"capsem/core/fault"
)

// Where the key of the store is.
const (
	keyInKeychain = "keychain"
	keyInFile     = "file"
)

// keychainTime bounds a keychain that does not answer: it may be asking a user who is not there.
const keychainTime = 20 * time.Second

// keychainService is what the keychain calls us.
const keychainService = "capsem credentials"

// Keychain is a keychain of the operating system.
type Keychain interface {
	// Get gives what is kept for an account, ErrNoKey if nothing is.
	Get(account string) (string, error)
	Set(account, secret string) error
}

// ErrNoKey is a keychain without a key of ours.
var ErrNoKey = errors.New("the keychain has no such key")

// SystemKeychain is the one of this machine, nil if there is none that could answer: then the key is in a file.
func SystemKeychain() Keychain {
	if !keychainAnswers() {
		return nil
	}
	return systemKeychain{}
}

type systemKeychain struct{}

// Get asks the keychain.
func (systemKeychain) Get(account string) (string, error) {
	return bounded(func() (string, error) {
		text, err := keyring.Get(keychainService, account)
		if errors.Is(err, keyring.ErrNotFound) {
			return "", ErrNoKey
		}
		return text, err //nolint:wrapcheck // by the caller
	})
}

// Set stores in the keychain.
func (systemKeychain) Set(account, secret string) error {
	_, err := bounded(func() (string, error) { return "", keyring.Set(keychainService, account, secret) })
	return err
}

// bounded gives up on a keychain that does not answer. Its goroutine then waits for the answer; it cannot be told to stop.
func bounded(ask func() (string, error)) (string, error) {
	type answer struct {
		text string
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		text, err := ask()
		answered <- answer{text, err}
	}()
	timer := time.NewTimer(keychainTime)
	defer timer.Stop()
	select {
	case a := <-answered:
		return a.text, a.err
	case <-timer.C:
		return "", errors.New("the keychain does not answer")
	}
}

// keys finds and makes the key.
type keys struct {
	keychain Keychain
	file     string
	account  string

	mu   sync.Mutex
	have map[string][]byte
}

// find gives the key that is in a place.
func (k *keys) find(source string) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if key := k.have[source]; key != nil {
		return key, nil
	}
	key, err := k.read(source)
	if err != nil {
		return nil, err
	}
	k.remember(source, key)
	return key, nil
}

func (k *keys) remember(source string, key []byte) {
	if k.have == nil {
		k.have = map[string][]byte{}
	}
	k.have[source] = key
}

func (k *keys) read(source string) ([]byte, error) {
	if source == keyInFile {
		return readKeyFile(k.file)
	}
	if k.keychain == nil {
		return nil, fault.New(fault.Unavailable, "the secrets are sealed with a key in the system's keychain, and there is none here").
			WithHint("start the service from a desktop session, where the keychain answers")
	}
	text, err := k.keychain.Get(k.account)
	if errors.Is(err, ErrNoKey) {
		return nil, ErrNoKey
	}
	if err != nil {
		return nil, fault.Wrap(err, fault.Unavailable, "the system's keychain cannot be asked for the key of the secrets").WithHint("unlock it and try again")
	}
	return parseKey(text)
}

// fresh gives a key for a new store and where it is: the one that is there, or a new one, in the keychain if that takes it.
func (k *keys) fresh() (key []byte, source string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keychain != nil {
		if key, err := k.fromKeychain(); err == nil {
			k.remember(keyInKeychain, key)
			return key, keyInKeychain, nil
		}
	}
	key, err = readKeyFile(k.file)
	if errors.Is(err, ErrNoKey) {
		key = newKey()
		err = os.MkdirAll(filepath.Dir(k.file), 0o700)
		if err == nil {
			err = atomicfile.Write(k.file, []byte(hex.EncodeToString(key)+"\n"), 0o600)
		}
	}
	if err != nil {
		return nil, "", fmt.Errorf("make key of the secrets: %w", err)
	}
	k.remember(keyInFile, key)
	return key, keyInFile, nil
}

func (k *keys) fromKeychain() ([]byte, error) {
	text, err := k.keychain.Get(k.account)
	if err == nil {
		return parseKey(text)
	}
	if !errors.Is(err, ErrNoKey) {
		return nil, err //nolint:wrapcheck // only tells that there is none
	}
	key := newKey()
	if err := k.keychain.Set(k.account, hex.EncodeToString(key)); err != nil {
		return nil, err //nolint:wrapcheck // only tells that there is none
	}
	return key, nil
}

func newKey() []byte {
	key := make([]byte, keySize)
	_, _ = rand.Read(key) // never fails
	return key
}

func parseKey(text string) ([]byte, error) {
	key, err := hex.DecodeString(strings.TrimSpace(text))
	if err != nil || len(key) != keySize {
		return nil, errors.New("what is kept as the key of the secrets is none")
	}
	return key, nil
}

// readKeyFile reads a key, and refuses one that others can read.
func readKeyFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoKey
	}
	if err != nil {
		return nil, fmt.Errorf("read key of the secrets: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read key of the secrets: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fault.New(fault.Forbidden, "others can read %s, the key of the secrets", path).WithHint("chmod 600 %s, and think of the secrets as known", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, 4*keySize))
	if err != nil {
		return nil, fmt.Errorf("read key of the secrets: %w", err)
	}
	key, err := parseKey(string(text))
	if err != nil {
		return nil, fault.Wrap(err, fault.Internal, "%s is no key", path).WithHint("put the right file back; without it the secrets cannot be read")
	}
	return key, nil
}
