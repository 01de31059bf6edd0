package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"capsem/core/client"
	"capsem/core/fault"
)

func (s *session) cpCommand() *cli.Command {
	return &cli.Command{
		Name: "cp", Category: groupSessions, Usage: "copy files in and out", UsageText: "cp SOURCE TARGET (one of them VM:PATH)",
		Description: "Copies a file, or a directory with all in it, to or from a VM. Modes are kept, as far as your umask allows. Links that lead\n" +
			"out of a directory do not come out of a VM. PATH is beneath /root unless absolute; - is standard input or output.",
		Action: action(s.cp),
	}
}

var guestSide = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9_-]{0,63}):(.*)$`)

// copyJob is one cp: a file here, a file in a VM.
type copyJob struct {
	s     *session
	svc   *client.Client
	vm    string
	local string
	guest string
}

func (s *session) cp(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 2, 2)
	if err != nil {
		return err
	}
	source, target := guestSide.FindStringSubmatch(args[0]), guestSide.FindStringSubmatch(args[1])
	if (source == nil) == (target == nil) {
		return fault.New(fault.Invalid, "cp copies between this machine and a VM").WithHint("write one side as VM:PATH; a local name with a colon as ./NAME")
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	job := &copyJob{s: s, svc: svc}
	if source != nil {
		job.vm, job.guest, job.local = source[1], source[2], args[1]
	} else {
		job.vm, job.guest, job.local = target[1], target[2], args[0]
	}
	if args[0] != "-" && args[1] != "-" {
		done := s.step(fmt.Sprintf("copying %s to %s", args[0], args[1]))
		defer done()
	}
	if source != nil {
		return job.download(ctx)
	}
	return job.upload(ctx)
}

func (j *copyJob) upload(ctx context.Context) error {
	if j.local == "-" {
		if j.guest == "" || strings.HasSuffix(j.guest, "/") {
			return fault.New(fault.Invalid, "standard input has no name").WithHint("name the file: %s:%sNAME", j.vm, j.guest)
		}
		_, err := j.svc.WriteFile(ctx, j.vm, j.guest, 0, j.s.env.Stdin)
		return err //nolint:wrapcheck // a fault
	}
	info, err := os.Stat(j.local)
	if err != nil {
		return localFault("read", j.local, err)
	}
	if err := j.guestTarget(ctx); err != nil {
		return err
	}
	if info.IsDir() {
		return j.uploadTree(ctx)
	}
	f, err := os.Open(j.local)
	if err != nil {
		return localFault("read", j.local, err)
	}
	defer f.Close()
	_, err = j.svc.WriteFile(ctx, j.vm, j.guest, uint32(info.Mode().Perm()), f)
	return err //nolint:wrapcheck // a fault
}

// guestTarget puts the source's name behind a target that is a directory, as cp does.
func (j *copyJob) guestTarget(ctx context.Context) error {
	abs, err := filepath.Abs(j.local)
	if err != nil {
		return localFault("read", j.local, err)
	}
	into := j.guest == "" || strings.HasSuffix(j.guest, "/")
	if !into {
		info, err := j.svc.StatFile(ctx, j.vm, j.guest)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err //nolint:wrapcheck // a fault
		}
		into = err == nil && info.Type == "dir"
	}
	if into {
		j.guest = path.Join(j.guest, filepath.Base(abs))
	}
	return nil
}

func (j *copyJob) download(ctx context.Context) error {
	info, err := j.svc.StatFile(ctx, j.vm, j.guest)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	switch {
	case info.Type == "dir" && j.local == "-":
		return fault.New(fault.Invalid, "%s:%s is a directory", j.vm, j.guest).WithHint("capsem exec %s -- tar c %s", j.vm, j.guest)
	case j.local == "-":
		return j.read(ctx, j.s.env.Stdout)
	}
	j.localTarget()
	if info.Type == "dir" {
		return j.downloadTree(ctx)
	}
	mode, err := strconv.ParseUint(info.Mode, 8, 32)
	if err != nil {
		mode = 0o644
	}
	return j.save(ctx, fs.FileMode(mode).Perm())
}

// localTarget puts the source's name behind a target that is a directory. The name comes from the user, not from the guest.
func (j *copyJob) localTarget() {
	info, err := os.Stat(j.local)
	base := path.Base(path.Join("/root", j.guest))
	if (err == nil && info.IsDir()) || strings.HasSuffix(j.local, "/") {
		j.local = filepath.Join(j.local, base)
	}
}

// save reads a file of the guest into a new local file and gives it its name only when it is whole. What is there and is
// no regular file, such as /dev/null or a pipe, is written to.
func (j *copyJob) save(ctx context.Context, mode fs.FileMode) (err error) {
	if info, statErr := os.Stat(j.local); statErr == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(j.local, os.O_WRONLY, 0)
		if err != nil {
			return localFault("write", j.local, err)
		}
		return errors.Join(j.read(ctx, f), f.Close())
	}
	temp := filepath.Join(filepath.Dir(j.local), "."+filepath.Base(j.local)+"."+rand.Text())
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode&^0o022) // and the umask
	if err != nil {
		return localFault("write", j.local, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	err = j.read(ctx, f)
	if old, statErr := os.Stat(j.local); err == nil && statErr == nil { // what is there keeps its mode, as with cp
		err = f.Chmod(old.Mode().Perm())
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err != nil {
		return err
	}
	if err = os.Rename(f.Name(), j.local); err != nil {
		return localFault("write", j.local, err)
	}
	return nil
}

func (j *copyJob) read(ctx context.Context, w io.Writer) error {
	content, err := j.svc.ReadFile(ctx, j.vm, j.guest)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	_, err = io.Copy(w, content)
	if err = errors.Join(err, content.Close()); err != nil {
		return fault.Wrap(err, fault.Internal, "cannot copy %s:%s: %s", j.vm, j.guest, err)
	}
	return nil
}

// localFault says what is wrong with a file of this machine.
func localFault(what, name string, err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	}
	return fault.Wrap(err, fault.Invalid, "cannot %s %s: %s", what, name, err)
}
