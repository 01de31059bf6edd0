package machine

import (
	"context"
	"errors"

	"capsem/core/inspect/modeltap"
	"capsem/core/ledger"
	"capsem/core/link"
	"capsem/core/mitm"
	"capsem/core/mitm/authority"
	"capsem/core/mitm/egress"
	"capsem/core/policy"
	"capsem/core/proto"
)

// maxNetworkStreams is how many connections the guest may have open at once; its own bound is the same.
const maxNetworkStreams = 480

// openProxy makes what the guest's connections end in.
func (n *network) openProxy(ctx context.Context) error {
	spec := &n.w.spec.Network
	ca, err := authority.LoadOrCreate(n.w.cfg.Home.CA())
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	n.certificate = ca.CertPEM()
	dialer, err := egress.New(egress.Config{
		Resolver: n.resolver, Proxy: spec.Proxy, CAFiles: spec.CAFiles, ClientCerts: spec.ClientCerts, Log: n.w.log,
	})
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	tap, closeTap, err := modeltap.Open(n.w.cfg.Home, modeltap.VM{Family: n.w.spec.BudgetFamily(), Image: n.w.spec.Image, Timezone: n.w.spec.Timezone}, n, n.w.log)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	n.closeTap = closeTap
	n.proxy, err = mitm.New(ctx, mitm.Config{
		VM: n.w.spec.ID, Policy: inForce{n}, Names: n.names, Authority: ca, Dialer: dialer, Recorder: n, Bypass: spec.Bypass, Log: n.w.log,
		Modifiers: n.modifiers(tap),
	})
	if err != nil {
		err = errors.Join(err, closeTap())
	}
	return err //nolint:wrapcheck // says what it did
}

// Record records what was said to models, and what became of budgets.
func (n *network) Record(row ledger.Row) { n.w.record(row) }

// serveNetwork serves one connection of the guest.
func (w *Worker) serveNetwork(ctx context.Context, st link.Stream) {
	if w.network == nil {
		return // a template that is being made
	}
	stop := context.AfterFunc(ctx, func() { _ = st.Close() })
	var open proto.NetworkOpen
	err := proto.ReadFrame(st, proto.MaxFrame, &open)
	if err == nil {
		err = open.Validate()
	}
	if err != nil {
		stop()
		w.log.Debug("the guest opened no connection", "error", err)
		return
	}
	if stop() {
		w.network.proxy.Serve(ctx, st, open)
	}
}

// RecordNet records a request or a connection.
func (n *network) RecordNet(e ledger.NetEvent) { n.w.record(e) }

// policyNow is the policy that holds now.
func (n *network) policyNow() *policy.Policy { return n.fresh().Policy() }

// inForce is the policy at each moment, as the proxy asks it.
type inForce struct{ n *network }

func (p inForce) Judge(ctx context.Context, req *policy.Request) policy.Verdict {
	return p.n.fresh().Judge(ctx, req)
}

func (p inForce) Continue(ctx context.Context, req *policy.Request, allowed policy.Verdict) policy.Verdict {
	return p.n.fresh().Continue(ctx, req, allowed)
}

func (p inForce) Possible(req *policy.Request) policy.Verdict { return p.n.fresh().Possible(req) }

func (p inForce) Refusal(v policy.Verdict, req *policy.Request) policy.Refusal {
	return p.n.fresh().Policy().Refusal(v, req)
}
