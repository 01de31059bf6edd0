// Package dns is the host's answer to the names that a guest asks for (design D7).
//
// A Server judges a name before anything else: a refused one is NXDOMAIN and goes nowhere. For an allowed one the owner's resolver is
// asked whether it exists, and the guest gets a stand-in address: one of a private pool, the same for a name as long as the VM lives, so
// that every connection says which name it is for. Real addresses never reach the guest; the proxy gets them from Resolver.Lookup when it
// dials.
//
// # Choices
//
// The pool is in 100.64.0.0/10: of the ranges that are not on the internet it is the one that clients treat least specially (language
// libraries do not call it private, home and container networks do not use it). AAAA of an existing name is empty with NOERROR: every
// client then uses the A answer at once, and one table and one redirection serve all; a name without IPv4 addresses has a stand-in too,
// since it is the host that dials. HTTPS and SVCB are empty, so nobody gets addresses or keys for ECH out of them. The links of a chain of
// CNAMEs are not judged one by one: the owner allowed the name, and its address is judged when it is dialled.
//
// The host's own /etc/hosts has no say unless it is configured: it names what runs on the host and in its network, and an owner who allows
// a name means the one that the world knows.
package dns
