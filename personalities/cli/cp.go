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
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "recursive", Aliases: []string{"r", "R"}, Usage: "changes nothing: directories are copied with all in them anyway"},
			&cli.BoolFlag{Name: "archive", Aliases: []string{"a"}, Usage: "changes nothing: what is kept is said above"},
		},
		Description: `Copies a file, or a directory with all in it, to or from a VM. PATH is beneath /root unless absolute; - is standard
input or output. If TARGET is a directory or ends in /, the copy gets SOURCE's name in it; its parent directory must
exist, for files and directories alike.

Permission bits are kept; on the way out group and others never get to write, and your umask holds. Setuid, setgid
and sticky bits are not kept. Owners are not kept: in the VM copies are root's, unless a single file replaces one of
another owner; out here they are yours. Files in a directory keep their times; a single file gets the time of the copy.
A symbolic link named as SOURCE is followed. Links in a directory stay links, and those that lead out of it do not come
out of a VM, which is said. Hard links become files of their own on the way in. Named pipes, sockets and devices are
left out of a directory, and refused as SOURCE.

From VM to VM go through here: capsem cp a:x - | capsem cp - b:y`,
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
	// info is of the local source, when it is a file or directory.
	info fs.FileInfo
	// notes are told at the end: meanwhile a changing line may be on the screen.
	notes []string
}

func (s *session) cp(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 2, 2)
	if err != nil {
		return err
	}
	source, target := guestSide.FindStringSubmatch(args[0]), guestSide.FindStringSubmatch(args[1])
	if source != nil && target != nil {
		return fault.New(fault.Invalid, "cp copies between this machine and a VM, not from VM to VM").
			WithHint("capsem cp %s - | capsem cp - %s; a directory: capsem exec %s -- tar c -C DIR . | capsem exec %s -- tar x -C DIR",
				args[0], args[1], source[1], target[1])
	}
	if source == nil && target == nil {
		return fault.New(fault.Invalid, "cp copies between this machine and a VM").WithHint("write one side as VM:PATH; a local name with a colon as ./NAME")
	}
	job := &copyJob{s: s}
	if source != nil {
		job.vm, job.guest, job.local = source[1], source[2], args[1]
	} else {
		job.vm, job.guest, job.local = target[1], target[2], args[0]
		if job.info, err = localSource(job.local); err != nil {
			return err
		}
	}
	if job.svc, err = s.service(ctx); err != nil {
		return err
	}
	done := func() {}
	if args[0] != "-" && args[1] != "-" {
		done = s.step(fmt.Sprintf("copying %s to %s", args[0], args[1]))
	}
	if source != nil {
		err = job.download(ctx)
	} else {
		err = job.upload(ctx)
	}
	done()
	for _, text := range job.notes {
		s.note("%s", text)
	}
	return err
}

func (j *copyJob) upload(ctx context.Context) error {
	if j.info == nil && (j.guest == "" || strings.HasSuffix(j.guest, "/")) {
		return fault.New(fault.Invalid, "standard input has no name").WithHint("name the file: %s:%sNAME", j.vm, j.guest)
	}
	if j.info != nil {
		if err := j.guestTarget(ctx); err != nil {
			return err
		}
	}
	if err := j.guestParent(ctx); err != nil {
		return err
	}
	switch {
	case j.info == nil:
		_, err := j.svc.WriteFile(ctx, j.vm, j.guest, 0, j.s.env.Stdin)
		return j.inGuest(err)
	case j.info.IsDir():
		return j.uploadTree(ctx)
	}
	f, info, err := openRegular(j.local)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = j.svc.WriteFile(ctx, j.vm, j.guest, uint32(info.Mode().Perm()), f)
	return j.inGuest(err)
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
		if err != nil && !missing(err) {
			return j.inGuest(err)
		}
		into = err == nil && info.Type == "dir"
	}
	if into {
		j.guest = path.Join(j.guest, filepath.Base(abs))
	}
	return nil
}

func (j *copyJob) download(ctx context.Context) error {
	named := j.guest
	info, err := j.sourceInGuest(ctx)
	if err != nil {
		return err
	}
	switch {
	case info.Type == "dir" && j.local == "-":
		return fault.New(fault.Invalid, "%s:%s is a directory", j.vm, named).WithHint("capsem exec %s -- tar c %s", j.vm, named)
	case j.local == "-":
		return j.read(ctx, j.s.env.Stdout)
	}
	if err := j.localTarget(named); err != nil {
		return err
	}
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
func (j *copyJob) localTarget(source string) error {
	info, err := os.Stat(j.local)
	base := path.Base(rooted(source))
	if (err == nil && info.IsDir()) || strings.HasSuffix(j.local, "/") {
		j.local = filepath.Join(j.local, base)
	}
	return localParent(j.local)
}

// save reads a file of the guest into a new local file and gives it its name only when it is whole. What is there and is
// no regular file, such as /dev/null or a pipe, is written to.
func (j *copyJob) save(ctx context.Context, mode fs.FileMode) (err error) {
	if info, statErr := os.Stat(j.local); statErr == nil && !info.Mode().IsRegular() {
		return j.pour(ctx)
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
		return j.inGuest(err)
	}
	_, err = io.Copy(w, content)
	if err = errors.Join(err, content.Close()); err != nil {
		return fault.Wrap(err, fault.Internal, "cannot copy %s:%s: %s", j.vm, j.guest, err)
	}
	return nil
}
