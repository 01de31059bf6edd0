package cli

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"capsem/core/client"
)

// show is a command that asks the service for something and prints it: as JSON with --json, else as text says.
func show[T any](s *session, least, most int, get func(context.Context, *client.Client, []string) (T, error), text func(*cli.Context, T) string) cli.ActionFunc {
	return action(func(ctx context.Context, c *cli.Context) error {
		args, err := words(c, least, most)
		if err != nil {
			return err
		}
		svc, err := s.service(ctx)
		if err != nil {
			return err
		}
		reply, err := get(ctx, svc, args)
		if err != nil {
			return err
		}
		if c.Bool("json") {
			return s.printJSON(reply)
		}
		return s.print(text(c, reply))
	})
}

// table is columns of text, each as wide as it has to be.
type table struct {
	text strings.Builder
	w    *tabwriter.Writer
}

// newTable is a table with a first row, if there is one.
func newTable(heads ...string) *table {
	t := &table{}
	t.w = tabwriter.NewWriter(&t.text, 0, 8, 2, ' ', 0)
	if len(heads) > 0 {
		t.row(heads...)
	}
	return t
}

// row adds a row. What is in it may come from anywhere: it is made safe for a terminal.
func (t *table) row(cells ...string) {
	safe := make([]string, len(cells))
	for i, cell := range cells {
		safe[i] = clean(cell)
	}
	fmt.Fprintln(t.w, strings.Join(safe, "\t"))
}

// String is the table. Nothing is added after it.
func (t *table) String() string {
	_ = t.w.Flush() // a strings.Builder takes everything
	return t.text.String()
}
