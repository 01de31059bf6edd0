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
		return j.inGuest(err)
	}
	r, w := io.Pipe()
	packed := make(chan error, 1)
	p := &packer{tw: tar.NewWriter(w)}
	go func() {
		err := p.tree(j.local)
		_ = w.CloseWithError(err) // of an io.Pipe: never fails
		packed <- err
	}()
	err := j.tar(ctx, []string{"tar", "-x", "-p", "--no-same-owner", "-C", rooted(j.guest)}, r, io.Discard)
	_ = r.Close() // ends the packer if tar ended first
	packErr := <-packed
	j.notes = append(j.notes, p.left.notes()...)
	if packErr != nil && !errors.Is(packErr, io.ErrClosedPipe) {
		return packErr
	}
	return err
}

func (j *copyJob) downloadTree(ctx context.Context) error {
	// A link here may be one that the guest made in an earlier copy, and lead anywhere.
	if info, err := os.Lstat(j.local); err == nil && info.Mode().Type() == os.ModeSymlink {
		return fault.New(fault.Forbidden, "%s is a symbolic link, which a copy from a VM does not follow", j.local).WithHint("name the directory itself")
	}
	if err := os.Mkdir(j.local, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return localFault("write", j.local, err)
	}
	root, err := os.OpenRoot(j.local)
	if err != nil {
		return localFault("write", j.local, err)
	}
	defer root.Close()
	r, w := io.Pipe()
	unpacked := make(chan error, 1)
	var warnings []string
	go func() {
		var err error
		warnings, err = unpackTree(r, root)
		_ = r.CloseWithError(err) // of an io.Pipe: never fails
		unpacked <- err
	}()
	err = j.tar(ctx, []string{"tar", "-c", "-C", rooted(j.guest), "."}, nil, w)
	_ = w.CloseWithError(err)
	unpackErr := <-unpacked
	j.notes = append(j.notes, warnings...)
	if unpackErr != nil && !errors.Is(unpackErr, err) {
		return fault.Wrap(unpackErr, fault.Internal, "cannot copy %s:%s: %s", j.vm, j.guest, unpackErr)
	}
	return err
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

// packer writes a directory as a tar.
type packer struct {
	tw *tar.Writer
	// left is what is neither a file, nor a directory, nor a link.
	left leftOut
}

// tree writes everything beneath dir.
func (p *packer) tree(dir string) error {
	// With a slash at its end it is the directory, also where its name is a link to it.
	err := filepath.WalkDir(dir+"/", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return localFault("read", name, err)
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return fmt.Errorf("pack %s: %w", name, err)
		}
		return p.one(name, filepath.ToSlash(rel), d)
	})
	if err != nil {
		return err
	}
	if err := p.tw.Close(); err != nil {
		return fmt.Errorf("pack %s: %w", dir, err)
	}
	return nil
}

func (p *packer) one(name, rel string, d fs.DirEntry) error {
	switch {
	case d.IsDir() || d.Type() == fs.ModeSymlink:
		return p.head(name, rel, d)
	case d.Type().IsRegular():
		return p.file(name, rel)
	}
	p.left.add(name, d.Type())
	return nil
}

// head writes a directory or a link.
func (p *packer) head(name, rel string, d fs.DirEntry) error {
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
	_, err = p.header(name, rel, link, info)
	return err
}

func (p *packer) file(name, rel string) error {
	f, info, err := openRegular(name)
	if err != nil {
		return err
	}
	defer f.Close()
	head, err := p.header(name, rel, "", info)
	if err != nil {
		return err
	}
	if _, err := io.CopyN(p.tw, f, head.Size); err != nil {
		return localFault("read", name, err)
	}
	return nil
}

// header writes the header of an entry: with its permission bits, but never setuid.
func (p *packer) header(name, rel, link string, info fs.FileInfo) (*tar.Header, error) {
	head, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", name, err)
	}
	head.Name, head.Mode = rel, int64(info.Mode().Perm())
	if err := p.tw.WriteHeader(head); err != nil {
		return nil, fmt.Errorf("pack %s: %w", name, err)
	}
	return head, nil
}

// pour writes a file of the guest to what is there and is no file, such as a pipe: Ctrl-C ends the wait for its reader too.
func (j *copyJob) pour(ctx context.Context) error {
	type opened struct {
		f   *os.File
		err error
	}
	ready := make(chan opened, 1)
	go func() {
		f, err := os.OpenFile(j.local, os.O_WRONLY, 0)
		ready <- opened{f, err}
	}()
	var to opened
	select {
	case to = <-ready:
	case <-ctx.Done(): // the goroutine waits on, to the end of the process
		return fmt.Errorf("wait for a reader of %s: %w", j.local, ctx.Err())
	}
	if to.err != nil {
		return localFault("write", j.local, to.err)
	}
	stop := context.AfterFunc(ctx, func() { _ = to.f.Close() }) // frees a write that waits
	defer stop()
	err := j.read(ctx, to.f)
	if closeErr := to.f.Close(); err == nil && closeErr != nil {
		return localFault("write", j.local, closeErr)
	}
	return err
}
