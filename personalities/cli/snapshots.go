package cli

import (
	"context"
	"errors"
	"io"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"capsem/core/api"
	"capsem/core/client"
)

func (s *session) snapshotsCommand() *cli.Command {
	verb := func(name, args, usage, about string, least, most int, run func(ctx context.Context, svc *client.Client, args []string) (texter, error)) *cli.Command {
		return &cli.Command{
			Name: name, Usage: usage, UsageText: "snapshots " + name + " [--json] VM" + args, Flags: []cli.Flag{jsonFlag()}, Description: about,
			Action: action(func(ctx context.Context, c *cli.Context) error { return s.snapshotVerb(ctx, c, least, most, run) }),
		}
	}
	return &cli.Command{
		Name: "snapshots", Aliases: []string{"snapshot"}, Category: groupRecords, Usage: "undo what was done to files", UsageText: "snapshots COMMAND VM ...",
		Description: "Copies of a VM's workspace (/root in it): ten are made by themselves, one every five minutes, as many as you like by hand. To\n" +
			"put a file, a directory or everything back: capsem snapshots revert VM [PATH [SNAPSHOT]].",
		Subcommands: []*cli.Command{
			verb("list", "", "all snapshots", "Lists the snapshots, oldest first, and what changed in each.", 1, 1, listSnapshots),
			verb("create", " [NAME]", "make one", "Makes a snapshot by hand. It stays until you delete it.", 1, 2, createSnapshot),
			verb("changes", "", "what has changed since", "Lists every path that is not as in the newest snapshot that shows it otherwise.", 1, 1, snapshotChanges),
			verb("diff", " SNAPSHOT [SNAPSHOT|now [PATH]]", "what differs", "Shows what differs between two snapshots, or between one and now.", 2, 4, snapshotDiff),
			verb("revert", " [PATH [SNAPSHOT]]", "put a path back", "Puts a file, a directory or (without a path, or with /root) everything back to a snapshot, or to the newest one that has it\n"+
				"otherwise. What was there before is kept in a snapshot of its own, so that this can be taken back too.", 1, 3, revertSnapshot),
			verb("history", " PATH", "a path in all snapshots", "Lists the versions of a file or directory, newest first.", 2, 2, snapshotHistory),
			verb("delete", " SNAPSHOT", "remove one", "Removes a snapshot that was made by hand.", 2, 2, deleteSnapshot),
			verb("compact", " SNAPSHOT...", "make one of several", "Makes one snapshot of several, in which the newest version of each path is, and removes them.", 2, -1, compactSnapshots),
			{
				Name: "cat", Usage: "print a file of one", UsageText: "snapshots cat VM SNAPSHOT PATH", Description: "Prints a file as it is in a snapshot.",
				Action: action(s.snapshotCat),
			},
		},
	}
}

// texter is an answer that can be read as it is.
type texter interface{ Text() string }

func (s *session) snapshotVerb(ctx context.Context, c *cli.Context, least, most int, run func(ctx context.Context, svc *client.Client, args []string) (texter, error)) error {
	args, err := words(c, least, most)
	if err != nil {
		return err
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	reply, err := run(ctx, svc, args)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return s.printJSON(reply)
	}
	return s.print(reply.Text())
}

// word is an argument that may be left out.
func word(args []string, i int) string {
	if i < len(args) {
		return args[i]
	}
	return ""
}

func listSnapshots(ctx context.Context, svc *client.Client, args []string) (texter, error) {
	reply, err := svc.Snapshots(ctx, args[0])
	return &reply, err //nolint:wrapcheck // a fault
}

func createSnapshot(ctx context.Context, svc *client.Client, args []string) (texter, error) {
	reply, err := svc.CreateSnapshot(ctx, args[0], word(args, 1))
	return &reply, err //nolint:wrapcheck // a fault
}

func snapshotChanges(ctx context.Context, svc *client.Client, args []string) (texter, error) {
	reply, err := svc.SnapshotChanges(ctx, args[0])
	return &reply, err //nolint:wrapcheck // a fault
}

func snapshotDiff(ctx context.Context, svc *client.Client, args []string) (texter, error) {
	to := word(args, 2)
	if to == "now" {
		to = ""
	}
	reply, err := svc.SnapshotDiff(ctx, args[0], args[1], to, word(args, 3))
	return &reply, err //nolint:wrapcheck // a fault
}

func revertSnapshot(ctx context.Context, svc *client.Client, args []string) (texter, error) {
	req := api.SnapshotRevertRequest{Path: word(args, 1), Checkpoint: word(args, 2)}
	if !utf8.ValidString(req.Path) {
		req.Path, req.PathRaw = "", []byte(req.Path)
	}
	reply, err := svc.RevertSnapshot(ctx, args[0], req)
	return &reply, err //nolint:wrapcheck // a fault
}

func snapshotHistory(ctx context.Context, svc *client.Client, args []string) (texter, error) {
	reply, err := svc.SnapshotHistory(ctx, args[0], args[1])
	return &reply, err //nolint:wrapcheck // a fault
}

func compactSnapshots(ctx context.Context, svc *client.Client, args []string) (texter, error) {
	reply, err := svc.CompactSnapshots(ctx, args[0], api.SnapshotCompactRequest{Checkpoints: args[1:]})
	return &reply, err //nolint:wrapcheck // a fault
}

func deleteSnapshot(ctx context.Context, svc *client.Client, args []string) (texter, error) {
	return nothing{Success: true}, svc.DeleteSnapshot(ctx, args[0], args[1]) //nolint:wrapcheck // a fault
}

// nothing is an answer without words.
type nothing api.Success

// Text is empty.
func (nothing) Text() string { return "" }

func (s *session) snapshotCat(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 3, 3)
	if err != nil {
		return err
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	body, err := svc.SnapshotFile(ctx, args[0], args[1], args[2])
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	_, err = io.Copy(s.guestText(), body)
	return errors.Join(err, body.Close())
}
