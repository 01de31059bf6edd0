package proto

import (
	"strings"
	"testing"
)

func TestNetworkFramesAreWithinTheirLimits(t *testing.T) {
	who := ProcessClaim{PID: 7, Name: "curl", Exe: "/usr/bin/curl", CommandLine: "curl x", Parents: []string{"bash"}}
	claim := func(change func(*ProcessClaim)) *ProcessClaim {
		p := who
		change(&p)
		return &p
	}
	open := func(dest string) *NetworkOpen { return &NetworkOpen{Dest: dest, Process: who} }
	holdsLimits(t, func() validated { return &ProcessClaim{} }, map[string]limit{
		"a process":               {&who, true},
		"an unknown process":      {&ProcessClaim{}, true},
		"a negative number":       {claim(func(p *ProcessClaim) { p.PID = -1 }), false},
		"a long name":             {claim(func(p *ProcessClaim) { p.Name = strings.Repeat("n", maxProcessName+1) }), false},
		"a long program":          {claim(func(p *ProcessClaim) { p.Exe = strings.Repeat("n", maxProcessText+1) }), false},
		"a long command line":     {claim(func(p *ProcessClaim) { p.CommandLine = strings.Repeat("n", maxProcessText+1) }), false},
		"16 parents":              {claim(func(p *ProcessClaim) { p.Parents = make([]string, maxParents) }), true},
		"17 parents":              {claim(func(p *ProcessClaim) { p.Parents = make([]string, maxParents+1) }), false},
		"a parent of a long name": {claim(func(p *ProcessClaim) { p.Parents = []string{strings.Repeat("n", maxProcessName+1)} }), false},
		"a parent of no letters":  {claim(func(p *ProcessClaim) { p.Parents = []string{"\xff"} }), false},
		"a name of no letters":    {claim(func(p *ProcessClaim) { p.Name = "\xff" }), false},
	})
	holdsLimits(t, func() validated { return &NetworkOpen{} }, map[string]limit{
		"an IPv4 destination":      {open("100.64.0.1:443"), true},
		"an IPv6 destination":      {open("[fd00::1]:443"), true},
		"a name as a destination":  {open("example.com:443"), false},
		"no port":                  {open("100.64.0.1"), false},
		"no destination":           {open(""), false},
		"a destination with spice": {open("[fe80::1%" + strings.Repeat("z", 80) + "]:1"), false},
		"a liar's connection":      {&NetworkOpen{Dest: "1.2.3.4:5", Process: ProcessClaim{PID: -1}}, false},
	})
	holdsLimits(t, func() validated { return &DNSQuery{} }, map[string]limit{
		"a lookup":           {&DNSQuery{ID: 1, Message: []byte("x")}, true},
		"an empty lookup":    {&DNSQuery{ID: 1}, false},
		"a lookup of 64 KiB": {&DNSQuery{Message: make([]byte, MaxDNSMessage+1)}, false},
	})
	holdsLimits(t, func() validated { return &DNSReply{} }, map[string]limit{
		"no answer":           {&DNSReply{ID: 1}, true},
		"an answer of 64 KiB": {&DNSReply{Message: make([]byte, MaxDNSMessage+1)}, false},
	})
}
