//go:build linux

// Package castore makes the programs of the guest trust the install's CA: it goes into the system's store, which is what most
// read, and into Java's. The environment names it to those that bring a store of their own.
package castore

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// Where the certificate goes, as update-ca-certificates would have it: when somebody runs that later, nothing is lost.
const (
	source  = "/usr/local/share/ca-certificates/capsem.crt"
	dir     = "/etc/ssl/certs"
	bundle  = dir + "/ca-certificates.crt"
	name    = "capsem.pem"
	java    = dir + "/java/cacerts"
	maxCert = 64 << 10
	// maxStore bounds what is read of a store.
	maxStore = 16 << 20
	// maxSameName bounds the certificates whose names have the same hash.
	maxSameName = 16
)

// Marks around our certificate in the bundle. What is not between lines of PEM is a comment there.
var begin, end = []byte("# capsem: the CA of this install begins\n"), []byte("# capsem: the CA of this install ends\n")

// Result is what Install has done.
type Result struct {
	// Env is for every process: it names the store to those programs that would not look at it.
	Env map[string]string
	// Skipped says in which stores the certificate is not, and why.
	Skipped []string
}

// Install puts a CA certificate (PEM) into the stores below root, in place of the one before. Doing it again changes nothing.
// It fails when the system's store does not have it in the end.
func Install(root string, certificate []byte) (Result, error) {
	ca, err := parse(certificate)
	if err != nil {
		return Result{}, fmt.Errorf("install CA: %w", err)
	}
	s := store{root: root, ca: ca, text: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.raw})}
	if err := s.system(); err != nil {
		return Result{}, fmt.Errorf("install CA: %w", err)
	}
	r := Result{Env: Env()}
	for _, part := range []struct {
		name string
		do   func() error
	}{{"certificates by hash", s.hashed}, {"Java", s.java}} {
		if err := part.do(); err != nil {
			r.Skipped = append(r.Skipped, part.name+": "+err.Error())
		}
	}
	return r, nil
}

// Env is the environment for a guest whose store has the certificate. On Debian curl, git, wget, Go programs, pip and Python's
// own ssl read the system's store by themselves. But SDKs in Python (certifi, by httpx and requests; botocore; gRPC) and programs in Rust
// bring a store, and so do curl and git that are not Debian's; these variables replace it. Node and Bun bring one to which theirs adds.
func Env() map[string]string {
	env := map[string]string{"NODE_EXTRA_CA_CERTS": source}
	for _, key := range []string{
		"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "AWS_CA_BUNDLE", "CARGO_HTTP_CAINFO",
		"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
	} {
		env[key] = bundle
	}
	return env
}

// Check reports why the system's store below root does not have the certificate that Install put there.
func Check(root string) error {
	text, err := read(filepath.Join(root, source), maxCert)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("the host has sent no certificate")
	}
	if err != nil {
		return err
	}
	if _, err := parse(text); err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	all, err := read(filepath.Join(root, bundle), maxStore)
	if err == nil && !bytes.Contains(all, text) {
		err = fmt.Errorf("%s does not have the certificate of %s", bundle, source)
	}
	return err
}

// store is one installation.
type store struct {
	root string
	ca   *certificate
	// text is ca in PEM, the way every tool writes it; old is what was there before, when that is another one.
	text, old []byte
}

func (s *store) path(name string) string { return filepath.Join(s.root, name) }

// system writes the certificate itself and the bundle of all certificates.
func (s *store) system() error {
	old, err := read(s.path(source), maxCert)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !bytes.Equal(old, s.text) {
		s.old = old
		if err := replace(s.path(source), s.text); err != nil {
			return err
		}
	}
	text, err := read(s.path(bundle), maxStore)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	now := s.bundled(text)
	if bytes.Equal(now, text) {
		return nil
	}
	return replace(s.path(bundle), now)
}

// bundled is a bundle with our certificate once, and not the one before.
func (s *store) bundled(text []byte) []byte {
	now := unmarked(text)
	if _, err := parse(s.old); err == nil {
		now = bytes.ReplaceAll(now, s.old, nil) // update-ca-certificates had added it
	}
	if bytes.Contains(now, s.text) {
		return now
	}
	now = bytes.Clone(now)
	if len(now) > 0 && now[len(now)-1] != '\n' {
		now = append(now, '\n')
	}
	return append(append(append(now, begin...), s.text...), end...)
}

// unmarked is a bundle without what is between our marks.
func unmarked(text []byte) []byte {
	for {
		before, rest, found := bytes.Cut(text, begin)
		if !found {
			return text
		}
		ours, after, closed := bytes.Cut(rest, end)
		if !closed || bytes.Contains(ours, begin) {
			after = rest // somebody has changed it: better twice there than others gone
		}
		text = append(bytes.Clone(before), after...)
	}
}

// hashed links the certificate where OpenSSL looks for the hash of a subject, in place of the link of the one before.
func (s *store) hashed() error {
	if err := relink(s.path(dir+"/"+name), source); err != nil {
		return err
	}
	hash, err := subjectHash(s.ca.subject)
	if err != nil {
		return err
	}
	if ca, err := parse(s.old); err == nil {
		if old, err := subjectHash(ca.subject); err == nil && old != hash {
			if err := s.unlink(old); err != nil {
				return err
			}
		}
	}
	for n := range maxSameName {
		path := s.link(hash, n)
		target, err := os.Readlink(path)
		switch {
		case target == name:
			return nil
		case errors.Is(err, fs.ErrNotExist):
			return relink(path, name)
		}
	}
	return errors.New("too many certificates have a name with this hash")
}

func (s *store) link(hash string, n int) string {
	return s.path(dir + "/" + hash + "." + strconv.Itoa(n))
}

// unlink removes our link at a hash.
func (s *store) unlink(hash string) error {
	for n := range maxSameName {
		path := s.link(hash, n)
		if target, err := os.Readlink(path); err == nil && target == name {
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("remove old link: %w", err)
			}
		}
	}
	return nil
}

// java adds the certificate to Java's store, where there is one.
func (s *store) java() error {
	text, err := read(s.path(java), maxStore)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // once Java is installed, its package takes all of the system's certificates over
	}
	if err != nil {
		return err
	}
	now, err := addToKeyStore(text, s.ca.raw, s.ca.notBefore)
	if err != nil || bytes.Equal(now, text) {
		return err
	}
	return replace(s.path(java), now)
}

// relink makes path a symbolic link, in place of whatever other one there is.
func relink(path, target string) error {
	if now, err := os.Readlink(path); err == nil && now == target {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("link certificate: %w", err)
	}
	if err := os.Symlink(target, path); err != nil {
		return fmt.Errorf("link certificate: %w", err)
	}
	return nil
}

// read reads a file of at most limit bytes.
func read(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read store: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s is too long", path)
	}
	if err != nil {
		return nil, fmt.Errorf("read store: %w", err)
	}
	return text, nil
}

// replace writes a file as a whole: no program ever reads half a store.
func replace(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write store: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".capsem-*")
	if err != nil {
		return fmt.Errorf("write store: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write store: %w", err), os.Remove(f.Name()))
	}
	return nil
}
