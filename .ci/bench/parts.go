package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"capsem/core/mitm/authority"
	"capsem/core/policy"
)

// rounds is how often each part is measured.
const rounds = 5

// minting measures how long a certificate for a new name takes.
func (b *bench) minting(context.Context) error {
	dir, err := os.MkdirTemp(b.tmp, "ca-")
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	ca, err := authority.LoadOrCreate(dir)
	if err != nil {
		return fmt.Errorf("make a CA: %w", err)
	}
	var each []float64
	for i := range 2000 {
		began := time.Now()
		if _, err := ca.Leaf(fmt.Sprintf("n%d.example.com", i)); err != nil {
			return fmt.Errorf("make a certificate: %w", err)
		}
		each = append(each, millis(time.Since(began)))
	}
	b.add(newRow("certificate for a new name", "ms", each).held(AtMost, 0.5).noted("core/mitm/authority in this process, P-256."))
	return nil
}

// verdicts measures a decision of a policy of 1,000 rules without "when", for a host at its end.
func (b *bench) verdicts(context.Context) error {
	set := &policy.Set{Layer: policy.LayerUser}
	for i := range 1000 {
		shape := []string{"h%d.example.com", "*.h%d.example.com", "**.h%d.example.com"}[i%3]
		set.Rules = append(set.Rules, policy.Rule{
			ID: fmt.Sprint("r", i), Effect: policy.Allow, Reason: "bench", Hosts: []policy.HostPattern{policy.HostPattern(fmt.Sprintf(shape, i))},
			Methods: []string{"GET", "POST"}, Paths: []string{"/v1/**", fmt.Sprintf("/only/%d", i)},
		})
	}
	p, err := policy.Compile(set)
	if err != nil {
		return fmt.Errorf("compile the policy: %w", err)
	}
	r, err := policy.ParseRequest("GET https://a.b.h998.example.com/v1/messages")
	if err != nil {
		return fmt.Errorf("make a request: %w", err)
	}
	const many = 100_000
	var each []float64
	for range rounds {
		began := time.Now()
		for range many {
			if v := p.Decide(&r); v.Effect != policy.Allow {
				return fmt.Errorf("the verdict is %v", v.Effect)
			}
		}
		each = append(each, float64(time.Since(began).Microseconds())/many)
	}
	b.add(newRow("policy verdict, 1,000 rules", "us", each).held(AtMost, 5).noted("core/policy in this process; each sample is the mean of %d.", many))
	return nil
}
