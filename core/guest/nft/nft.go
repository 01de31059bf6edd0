//go:build linux

// Package nft sends what leaves the guest to its proxies: one nftables table, set as a whole by netlink. TCP goes to the
// net-proxy and name lookups go to the dns-proxy, both on the loopback; everything else is refused at once, so that nothing
// waits for an answer that cannot come.
package nft

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Ports of the loopback that connections and lookups are redirected to.
const (
	ProxyPort = 10443
	DNSPort   = 1053
)

// Apply sets the rules, in place of those that an earlier call has set. Nothing leaves the guest under half a table: the kernel
// takes all of it or nothing.
func Apply() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	t := table()
	c.AddTable(t) // so that there is one to delete
	c.DelTable(t)
	c.AddTable(t)
	for _, chain := range chains() {
		chain.Table = t
		ch := c.AddChain(chain.Chain)
		for _, rule := range chain.rules {
			c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: rule})
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("set nftables rules: %w", err)
	}
	return nil
}

// Verify reads the rules back and fails when they are not those of Apply.
func Verify() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	got, err := c.ListChainsOfTableFamily(table().Family)
	if err != nil {
		return fmt.Errorf("list nftables chains: %w", err)
	}
	byName := map[string]*nftables.Chain{}
	for _, ch := range got {
		if ch.Table != nil && ch.Table.Name == table().Name {
			byName[ch.Name] = ch
		}
	}
	want := chains()
	if len(byName) != len(want) {
		return fmt.Errorf("verify nftables: %d chains instead of %d", len(byName), len(want))
	}
	for _, chain := range want {
		if err := verifyChain(c, chain, byName[chain.Name]); err != nil {
			return fmt.Errorf("verify nftables chain %s: %w", chain.Name, err)
		}
	}
	return nil
}

func verifyChain(c *nftables.Conn, want chain, got *nftables.Chain) error {
	switch {
	case got == nil:
		return errors.New("it is not there")
	case got.Hooknum == nil || *got.Hooknum != *want.Hooknum, got.Priority == nil || *got.Priority != *want.Priority,
		got.Type != want.Type, got.Policy == nil || *got.Policy != *want.Policy:
		return errors.New("it hangs elsewhere")
	}
	rules, err := c.GetRules(table(), want.Chain)
	if err != nil {
		return fmt.Errorf("list rules: %w", err)
	}
	if len(rules) != len(want.rules) {
		return fmt.Errorf("%d rules instead of %d", len(rules), len(want.rules))
	}
	for i, rule := range rules {
		if err := same(want.rules[i], rule.Exprs); err != nil {
			return fmt.Errorf("rule %d: %w", i+1, err)
		}
	}
	return nil
}

// same compares two rules as they go over netlink.
func same(want, got []expr.Any) error {
	if len(want) != len(got) {
		return fmt.Errorf("%d expressions instead of %d", len(got), len(want))
	}
	for i := range want {
		a, err := expr.Marshal(byte(table().Family), want[i])
		if err != nil {
			return fmt.Errorf("encode expression %d: %w", i+1, err)
		}
		b, err := expr.Marshal(byte(table().Family), got[i])
		if err != nil {
			return fmt.Errorf("encode expression %d: %w", i+1, err)
		}
		if !bytes.Equal(a, b) {
			return fmt.Errorf("expression %d is not ours", i+1)
		}
	}
	return nil
}
