package credential

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"capsem/core/atomicfile"
	"capsem/core/fault"
	"capsem/core/paths"
)

// maxStore bounds the sealed file, in bytes.
const maxStore = 4 << 20

// Store is the sealed credentials of an installation. It may be used by many goroutines of one process: the service.
type Store struct {
	path, presets string
	keys          keys
	log           *slog.Logger

	// renewing has a turn for each name whose token is being renewed.
	renewing sync.Map

	mu sync.Mutex
	// entries are what is in the file; nil until it has been read.
	entries []Entry
	loaded  bool
}

// Open prepares the store of an installation; keychain is nil where there is none. Nothing is read before it is asked for.
func Open(home paths.Home, keychain Keychain, log *slog.Logger) *Store {
	return &Store{
		path: home.Credentials(), presets: home.AcceptedPolicy(), log: log,
		keys: keys{keychain: keychain, file: home.CredentialKey(), account: home.Dir()},
	}
}

// stored is what is sealed.
type stored struct {
	Entries []Entry `json:"entries"`
}

// All gives the credentials, sorted by name. They carry the real values.
func (s *Store) All() ([]Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(); err != nil {
		return nil, err
	}
	return slices.Clone(s.entries), nil
}

// Get gives one.
func (s *Store) Get(name string) (Entry, error) {
	all, err := s.All()
	if err != nil {
		return Entry{}, err
	}
	for _, e := range all {
		if e.Name == name {
			return e, nil
		}
	}
	return Entry{}, notThere(name)
}

func notThere(name string) error {
	return fault.New(fault.NotFound, "there is no secret %.80q", name).WithHint("capsem secret list shows them")
}

// Set adds a credential, or replaces the one of its name.
func (s *Store) Set(e Entry) error {
	if err := e.Complete(); err != nil {
		return err
	}
	return s.change(func(all []Entry) ([]Entry, error) {
		i := slices.IndexFunc(all, func(o Entry) bool { return o.Name == e.Name })
		if i < 0 && len(all) >= maxEntries {
			return nil, fault.New(fault.LimitReached, "there are %d secrets already", len(all)).WithHint("remove one that is not used: capsem secret rm")
		}
		for j, o := range all {
			if j != i && o.Value == e.Value && o.Kind != ForServers && e.Kind != ForServers {
				return nil, fault.New(fault.Conflict, "secret %s has the same value", o.Name).WithHint("one secret can be bound to several hosts")
			}
		}
		e.Updated = time.Now().UTC().Truncate(time.Second)
		if i < 0 {
			all = append(all, e)
		} else {
			all[i] = e
		}
		return all, checkVariables(all)
	})
}

// Remove removes one.
func (s *Store) Remove(name string) error {
	return s.change(func(all []Entry) ([]Entry, error) {
		out := slices.DeleteFunc(all, func(e Entry) bool { return e.Name == name })
		if len(out) == len(all) {
			return nil, notThere(name)
		}
		return out, nil
	})
}

// renew stores new tokens of a sign-in, unless it was set again meanwhile. What its placeholders look like does not change.
func (s *Store) renew(name string, was, now Entry) error {
	return s.change(func(all []Entry) ([]Entry, error) {
		for i := range all {
			if all[i].Name == name && all[i].Value == was.Value {
				all[i].Value, all[i].Token = now.Value, now.Token
				return all, nil
			}
		}
		return nil, notThere(name)
	})
}

// change applies a change to the file and then to what is known.
func (s *Store) change(do func([]Entry) ([]Entry, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(); err != nil {
		return err
	}
	all, err := do(slices.Clone(s.entries))
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	if err := s.write(all); err != nil {
		return err
	}
	s.entries = all
	return s.acceptPresets()
}

func (s *Store) write(all []Entry) error {
	key, source, err := s.keyForWriting()
	if err != nil {
		return err
	}
	plain, err := json.Marshal(stored{all})
	if err != nil {
		return fmt.Errorf("encode secrets: %w", err)
	}
	text, err := seal(plain, key, source)
	clear(plain)
	if err != nil {
		return err
	}
	if len(text) > maxStore {
		return fault.New(fault.TooLarge, "the secrets together are too long")
	}
	return atomicfile.Write(s.path, text, 0o600) //nolint:wrapcheck // says what and where
}

// keyForWriting is the key of the file that is there, or of a new one.
func (s *Store) keyForWriting() (key []byte, source string, err error) {
	text, err := readStore(s.path)
	if err == nil && text != nil {
		if old, err := parseSealed(text); err == nil {
			if key, err := s.keys.find(old.Key); err == nil && keyID(key) == old.KeyID {
				return key, old.Key, nil
			}
		}
	}
	return s.keys.fresh()
}

// load reads the file once. A damaged one is moved aside and named: it is never taken for an empty one.
func (s *Store) load() error {
	if s.loaded {
		return nil
	}
	text, err := readStore(s.path)
	if err != nil {
		return err
	}
	if text == nil {
		s.entries, s.loaded = nil, true
		return nil
	}
	all, err := s.unseal(text)
	switch {
	case errors.Is(err, errDamaged):
		aside := s.path + ".corrupt-" + time.Now().UTC().Format("20060102T150405.000000000Z")
		if err := os.Rename(s.path, aside); err != nil {
			return fmt.Errorf("move damaged secrets aside: %w", err)
		}
		s.log.Error("the stored secrets are damaged; they are set aside", "old", aside)
		return fault.Wrap(err, fault.Internal, "the stored secrets are damaged; the file is now %s", aside).
			WithHint("put a good copy back as %s, or store the secrets again", s.path)
	case errors.Is(err, errOtherKey), errors.Is(err, ErrNoKey):
		return fault.Wrap(err, fault.Conflict, "%s was sealed with another key than the one that is here", s.path).
			WithHint("put the key back (%s, or the keychain), or remove the file and store the secrets again", s.keys.file)
	case errors.Is(err, errNewer):
		return fault.Wrap(err, fault.Conflict, "%s is of a newer version of capsem", s.path).WithHint("update capsem")
	case err != nil:
		return err
	}
	s.entries, s.loaded = all, true
	return s.acceptPresets()
}

func (s *Store) unseal(text []byte) ([]Entry, error) {
	outside, err := parseSealed(text)
	if err != nil {
		return nil, err
	}
	key, err := s.keys.find(outside.Key)
	if err != nil {
		return nil, err
	}
	plain, err := outside.open(key)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	var in stored
	if err := json.Unmarshal(plain, &in); err != nil {
		return nil, errDamaged
	}
	return in.Entries, nil
}

// readStore reads the sealed file; nil when there is none.
func readStore(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read secrets: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxStore+1))
	if err != nil {
		return nil, fmt.Errorf("read secrets: %w", err)
	}
	if len(text) > maxStore {
		return nil, errDamaged
	}
	return text, nil
}

// acceptPresets writes which presets of the policy the stored credentials open, where the policy reads it.
func (s *Store) acceptPresets() error {
	names := AcceptedPresets(s.entries)
	if len(names) == 0 {
		if err := os.Remove(s.presets); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("close presets: %w", err)
		}
		return nil
	}
	text := "# Written by capsem: providers whose secrets you have stored (capsem secret list). Your own rules come before these.\n" +
		"presets = [\"" + strings.Join(names, "\", \"") + "\"]\n"
	if old, err := os.ReadFile(s.presets); err == nil && string(old) == text {
		return nil
	}
	return atomicfile.Write(s.presets, []byte(text), 0o600) //nolint:wrapcheck // says what and where
}
