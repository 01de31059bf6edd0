package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"capsem/core/atomicfile"
	"capsem/core/fault"
	"capsem/core/paths"
)

const (
	// noFollow: a link in the place of one of our files is not followed, nor does a pipe there hold us up.
	noFollow          = syscall.O_NOFOLLOW | syscall.O_CLOEXEC | syscall.O_NONBLOCK
	maxFile           = 16 << 10
	certType, keyType = "CERTIFICATE", "PRIVATE KEY"
)

// startOver says how to get rid of a CA that cannot be used. Nothing does that by itself: each guest that runs trusts the old one only.
const startOver = "put the right file back, or remove ca.pem and ca.key from %s to have a new one made, and restart VMs that run"

// LoadOrCreate reads the CA in dir, and makes it on first use. Of several that make it at once one wins and all get the same: the key is
// made first, and whoever finds a key without a certificate makes one for it. What is damaged or not the user's own is a fault.
func LoadOrCreate(dir string) (*Authority, error) { return loadOrCreate(dir, time.Now) }

func loadOrCreate(dir string, now func() time.Time) (*Authority, error) {
	keyPath, certPath := filepath.Join(dir, paths.CAKeyFile), filepath.Join(dir, paths.CACertFile)
	key, err := loadKey(keyPath)
	if errors.Is(err, os.ErrNotExist) {
		key, err = makeKey(keyPath, certPath)
	}
	if err != nil {
		return nil, err
	}
	cert, err := loadCert(certPath)
	if errors.Is(err, os.ErrNotExist) {
		cert, err = makeCert(certPath, key, now())
	}
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fault.New(fault.Invalid, "%s is not the key of %s", keyPath, certPath).WithHint(startOver, dir)
	}
	if now().After(cert.NotAfter) {
		return nil, fault.New(fault.Invalid, "the certificate authority in %s has expired (%s)", dir, cert.NotAfter.UTC().Format(time.DateOnly)).
			WithHint("remove ca.pem and ca.key there to have a new one made, and restart VMs that run")
	}
	return newAuthority(cert, key, now)
}

// readOwn reads a file that is the user's, which nobody else may write, nor read if it is private.
func readOwn(path string, private bool) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|noFollow, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fault.Wrap(err, fault.Forbidden, "%s is a link, not a file of capsem", path).WithHint(startOver, filepath.Dir(path))
	}
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	mode, forbidden := "0644", os.FileMode(0o022)
	if private {
		mode, forbidden = "0600", 0o077
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return nil, fault.New(fault.Forbidden, "%s is no regular file", path).WithHint(startOver, filepath.Dir(path))
	case !ok || int64(stat.Uid) != int64(os.Geteuid()):
		return nil, fault.New(fault.Forbidden, "%s belongs to another user", path).WithHint("run capsem as the user who owns CAPSEM_HOME")
	case info.Mode().Perm()&forbidden != 0:
		return nil, fault.New(fault.Forbidden, "others may read or change %s", path).WithHint("run: chmod %s %s", mode, path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	return data, nil
}

func loadKey(path string) (*ecdsa.PrivateKey, error) {
	data, err := readOwn(path, true)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(data)
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "%s is no key of a certificate authority", path).WithHint(startOver, filepath.Dir(path))
	}
	return key, nil
}

func parseKey(data []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != keyType {
		return nil, errors.New("no PEM block")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err //nolint:wrapcheck // by the caller
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("not a key on P-256")
	}
	return key, nil
}

func loadCert(path string) (*x509.Certificate, error) {
	data, err := readOwn(path, false)
	if err != nil {
		return nil, err
	}
	cert, err := parseCert(data)
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "%s is no certificate of an authority", path).WithHint(startOver, filepath.Dir(path))
	}
	return cert, nil
}

func parseCert(data []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != certType {
		return nil, errors.New("no PEM block")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err //nolint:wrapcheck // by the caller
	}
	if !cert.IsCA || !cert.BasicConstraintsValid || cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, errors.New("not of an authority")
	}
	return cert, nil
}

// makeKey makes the key, unless there is a certificate that was for another.
func makeKey(path, certPath string) (*ecdsa.PrivateKey, error) {
	if _, err := os.Lstat(certPath); err == nil {
		// Somebody may have made both since we looked for the key.
		if key, err := loadKey(path); !errors.Is(err, os.ErrNotExist) {
			return key, err
		}
		return nil, fault.New(fault.Invalid, "the key of the certificate authority %s is gone", certPath).WithHint(startOver, filepath.Dir(path))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make CA key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make CA key: %w", err)
	}
	if err := publish(path, &pem.Block{Type: keyType, Bytes: der}, 0o600); err != nil {
		return nil, fmt.Errorf("make CA key: %w", err)
	}
	return loadKey(path)
}

// makeCert makes the certificate for a key.
func makeCert(path string, key *ecdsa.PrivateKey, now time.Time) (*x509.Certificate, error) {
	number, err := serial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: number,
		// The name differs from install to install: a client that knows several finds the right one by it.
		Subject:   pkix.Name{Organization: []string{"capsem"}, CommonName: "capsem CA " + hex.EncodeToString(number.Bytes()[:4])},
		NotBefore: now.Add(-caBefore), NotAfter: now.Add(caAfter), IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make CA certificate: %w", err)
	}
	if err := publish(path, &pem.Block{Type: certType, Bytes: der}, 0o644); err != nil {
		return nil, fmt.Errorf("make CA certificate: %w", err)
	}
	return loadCert(path)
}

// publish writes a file under a temporary name and links it to its own, which fails where there is one.
func publish(path string, block *pem.Block, mode os.FileMode) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	draft := path + ".new-" + rand.Text()
	if err := atomicfile.Write(draft, pem.EncodeToMemory(block), mode); err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	err := os.Link(draft, path)
	if errors.Is(err, os.ErrExist) {
		err = nil
	}
	return errors.Join(err, os.Remove(draft), atomicfile.SyncDir(dir))
}
