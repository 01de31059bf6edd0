package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"capsem/core/api"
	"capsem/core/fault"
	"capsem/core/inspect/price"
)

func (s *session) modelsCommand() *cli.Command {
	return &cli.Command{
		Name: "models", Category: groupRecords, Usage: "calls of models", UsageText: "models [flags] VM|SESSION",
		Flags: []cli.Flag{&cli.IntFlag{Name: "tail", Aliases: []string{"n"}, Usage: "the last `N`", Value: defaultTail}, jsonFlag()},
		Description: "Lists what a VM asked of models, the newest last: tokens, cost, why the model stopped, and which calls are one task (TRACE).\n" +
			"A cost is our reckoning by a dated table of prices; ? is a model that is not in it (prices.toml in CAPSEM_HOME can say it).",
		Action: action(s.models),
	}
}

func (s *session) models(ctx context.Context, c *cli.Context) error {
	args, err := words(c, 1, 1)
	if err != nil {
		return err
	}
	n := c.Int("tail")
	if n < 1 || n > maxTail {
		return fault.New(fault.Invalid, "--tail is %d; it must be a number from 1 to %d", n, maxTail)
	}
	svc, err := s.service(ctx)
	if err != nil {
		return err
	}
	page, err := svc.History(ctx, args[0], url.Values{"kind": {"model"}, "limit": {strconv.Itoa(n)}})
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	if c.Bool("json") {
		return s.printJSON(page)
	}
	return s.print(modelsText(page))
}

func modelsText(page api.HistoryPage) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "TIME\tMODEL\tSTATUS\tIN\tCACHED\tOUT\tCOST\tFIRST\tTOTAL\tTRACE\tEND")
	for _, e := range slices.Backward(page.Entries) {
		get := func(name string) string {
			switch v := e.Fields[name].(type) {
			case nil:
				return "-"
			case float64: // a number of JSON
				return strconv.FormatFloat(v, 'f', -1, 64)
			default:
				return clean(fmt.Sprint(v))
			}
		}
		var d struct {
			CacheRead    int64  `json:"cache_read"`
			FirstTokenMS int64  `json:"first_token_ms"`
			CostNanoUSD  *int64 `json:"cost_nano_usd"`
			Cut          string `json:"cut"`
			Error        string `json:"error"`
		}
		if text, ok := e.Fields["usage_details"].(string); ok {
			_ = json.Unmarshal([]byte(text), &d) // what cannot be read is not shown
		}
		cost, first := "?", "-"
		if d.CostNanoUSD != nil {
			cost = "$" + price.Nano(*d.CostNanoUSD).String()
		}
		if d.FirstTokenMS > 0 {
			first = strconv.FormatInt(d.FirstTokenMS, 10) + " ms"
		}
		end := get("stop_reason")
		for _, other := range []string{d.Error, d.Cut} {
			if other != "" {
				end = clean(other)
			}
		}
		fmt.Fprintf(w, "%s\t%s %s\t%s\t%s\t%d\t%s\t%s\t%s\t%s ms\t%s\t%s\n", localTime(e.Time), get("provider"), get("model"), get("status_code"), get("input_tokens"),
			d.CacheRead, get("output_tokens"), cost, first, get("duration_ms"), get("trace_id"), end)
	}
	_ = w.Flush() // a strings.Builder takes everything
	return b.String()
}

// costText is a sum of costs, some of which may not be known.
func costText(usd float64, unknown int64) string {
	switch {
	case unknown > 0 && usd == 0:
		return "cost not known"
	case unknown > 0:
		return fmt.Sprintf("%.4f USD and %d of unknown cost", usd, unknown)
	}
	return fmt.Sprintf("%.4f USD", usd)
}
