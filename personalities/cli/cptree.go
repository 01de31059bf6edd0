package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"capsem/core/api"
	"capsem/core/fault"
)

// A directory goes through tar in the guest, one stream for all of it. What comes from a guest is unpacked beneath one
// os.Root: no name and no link in it leads elsewhere.

func (j *copyJob) uploadTree(ctx context.Context) error {
	if _, err := j.svc.Mkdir(ctx, j.vm, j.guest, 0o755); err != nil {
		return err //nolint:wrapcheck // a fault
	}
	r, w := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		err := packTree(w, j.local)
		_ = w.CloseWithError(err) // of an io.Pipe: never fails
		packed <- err
	}()
	err := j.tar(ctx, []string{"tar", "-x", "-p", "--no-same-owner", "-C", rooted(j.guest)}, r, io.Discard)
	_ = r.Close() // ends the packer if tar ended first
	if packErr := <-packed; packErr != nil && !errors.Is(packErr, io.ErrClosedPipe) {
		return packErr
	}
	return err
}

func (j *copyJob) downloadTree(ctx context.Context) error {
	// A link here may be one that the guest made in an earlier copy, and lead anywhere.
	if info, err := os.Lstat(j.local); err == nil && info.Mode().Type() == os.ModeSymlink {
		return fault.New(fault.Forbidden, "%s is a symbolic link, which a copy from a VM does not follow", j.local).WithHint("name the directory itself")
	}
	if err := os.MkdirAll(j.local, 0o755); err != nil {
		return localFault("write", j.local, err)
	}
	root, err := os.OpenRoot(j.local)
	if err != nil {
		return localFault("write", j.local, err)
	}
	defer root.Close()
	r, w := io.Pipe()
	unpacked := make(chan error, 1)
	warning := ""
	go func() {
		var err error
		warning, err = unpackTree(r, root)
		_ = r.CloseWithError(err) // of an io.Pipe: never fails
		unpacked <- err
	}()
	err = j.tar(ctx, []string{"tar", "-c", "-C", rooted(j.guest), "."}, nil, w)
	_ = w.CloseWithError(err)
	if unpackErr := <-unpacked; unpackErr != nil && !errors.Is(unpackErr, err) {
		return fault.Wrap(unpackErr, fault.Internal, "cannot copy %s:%s: %s", j.vm, j.guest, unpackErr)
	}
	if warning != "" {
		fmt.Fprintln(j.s.env.Stderr, "capsem:", warning)
	}
	return err
}

// rooted makes a guest path absolute, as the file routes understand it.
func rooted(guest string) string {
	if filepath.IsAbs(guest) {
		return guest
	}
	return filepath.Join("/root", guest)
}

// tar runs tar in the guest with the given streams.
func (j *copyJob) tar(ctx context.Context, argv []string, stdin io.ReadCloser, stdout io.Writer) error {
	stream, err := j.svc.ExecStream(ctx, j.vm, api.ExecRequest{Argv: argv, Stdin: stdin != nil})
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	var complaint tail
	b := &bridge{conn: stream, stdout: stdout, stderr: &complaint, restore: func() {}}
	if stdin != nil {
		if b.stdin, err = newInput(stdin); err != nil {
			return errors.Join(err, stream.Close())
		}
		defer b.stdin.close()
	}
	out, err := b.run(ctx)
	if err == nil && out.exit.Code != 0 {
		what := lastLine(complaint.String() + out.exit.Error)
		return fault.New(fault.Internal, "tar in VM %s failed with code %d: %s", j.vm, out.exit.Code, what)
	}
	return err
}

// tail keeps the beginning of a text, enough for a message.
type tail struct{ bytes.Buffer }

// Write keeps what fits in 4 KiB and forgets the rest.
func (t *tail) Write(p []byte) (int, error) {
	_, _ = t.Buffer.Write(p[:min(len(p), max(0, 4096-t.Len()))]) // a bytes.Buffer takes everything
	return len(p), nil
}

// packTree writes everything beneath dir as a tar. Sockets and devices are left out.
func packTree(w io.Writer, dir string) error {
	tw := tar.NewWriter(w)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return localFault("read", name, err)
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return fmt.Errorf("pack %s: %w", name, err)
		}
		return packOne(tw, name, filepath.ToSlash(rel), d)
	})
	if err != nil {
		return err
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("pack %s: %w", dir, err)
	}
	return nil
}

func packOne(tw *tar.Writer, name, rel string, d fs.DirEntry) error {
	if !d.Type().IsRegular() && !d.IsDir() && d.Type() != fs.ModeSymlink {
		return nil
	}
	info, err := d.Info()
	if err != nil {
		return localFault("read", name, err)
	}
	link := ""
	if d.Type() == fs.ModeSymlink {
		if link, err = os.Readlink(name); err != nil {
			return localFault("read", name, err)
		}
	}
	head, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return fmt.Errorf("pack %s: %w", name, err)
	}
	head.Name, head.Mode = rel, int64(info.Mode().Perm())
	if err := tw.WriteHeader(head); err != nil {
		return fmt.Errorf("pack %s: %w", name, err)
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	f, err := os.Open(name)
	if err != nil {
		return localFault("read", name, err)
	}
	defer f.Close()
	if _, err := io.CopyN(tw, f, head.Size); err != nil {
		return localFault("read", name, err)
	}
	return nil
}
