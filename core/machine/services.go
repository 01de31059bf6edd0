package machine

import (
	"context"
	"strconv"
	"time"

	"capsem/core/guestlink"
	"capsem/core/ledger"
	"capsem/core/link"
	"capsem/core/proto"
)

// How many streams the guest may have open at once for each of what it is served.
const maxFileStreams, maxAuditStreams, maxDNSStreams = 2 * proto.MaxShares, 4, 4

// services are what the guest may open streams to.
func (w *Worker) services() map[proto.Port]guestlink.Service {
	return map[proto.Port]guestlink.Service{
		proto.PortFiles:     {Max: maxFileStreams, Serve: func(ctx context.Context, st link.Stream) { w.serveFiles(ctx, st.Header().Dest, st) }},
		proto.PortAudit:     {Max: maxAuditStreams, Serve: w.serveAudit},
		proto.PortDNS:       {Max: maxDNSStreams, Serve: w.serveDNS},
		proto.PortNetwork:   {Max: maxNetworkStreams, Serve: w.serveNetwork},
		proto.PortMCP:       {Max: maxMCPStreams, Serve: w.serveMCP},
		proto.PortSnapshots: {Max: maxSnapshotStreams, Serve: w.serveSnapshots},
	}
}

// serveAudit records the programs that the guest's kernel says were started. Those in a template that is being made are nobody's.
func (w *Worker) serveAudit(ctx context.Context, st link.Stream) {
	stop := context.AfterFunc(ctx, func() { _ = st.Close() })
	defer stop()
	for {
		var batch proto.AuditBatch
		err := proto.ReadFrame(st, proto.MaxFrame, &batch)
		if err == nil {
			err = batch.Validate()
		}
		if err != nil {
			w.log.Debug("the guest's reports ended", "error", err)
			return
		}
		if batch.Lost > 0 {
			w.note("guest-lost-reports", strconv.FormatUint(batch.Lost, 10), 0)
		}
		now := time.Now() // the guest's clock is the guest's
		for i := range batch.Records {
			r := &batch.Records[i]
			w.record(ledger.AuditEvent{
				Time: now, PID: int64(r.PID), PPID: int64(r.PPID), UID: int64(r.UID), Exe: r.Exe, Comm: r.Comm, Argv: r.Argv, Cwd: r.Cwd,
				ExitCode: int(r.Exit), SessionID: int64(r.Session), TTY: r.TTY, AuditID: strconv.FormatUint(r.Serial, 10),
			})
		}
	}
}
