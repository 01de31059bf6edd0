// Package policy decides what a VM may reach. It is one ordered, typed list of rules and a function from a request to a verdict;
// it does no I/O, and a compiled Policy never changes, so a reload is the exchange of one pointer.
//
// # Order
//
// Rules stand in layers: corp, then user, then defaults. Within a layer the first rule that matches decides, and the first layer
// with a match ends the search, so no allow of a lower layer can undo a deny (or an ask) of a higher one. Where nothing matches, the
// request is denied. The rules of one VM (layer vm) come after that and can only narrow: the verdict is the more severe of the two,
// where deny is more severe than ask, and ask more than allow. A VM's list that matches nothing changes nothing.
//
// # Matching
//
// A rule matches when all its conditions do; a condition left out always holds. Hosts, ports, schemes, methods, paths, processes,
// mcp_server, mcp_tool and dns_name hold if any of their entries does; query and headers hold if all of their entries do. An allow opens
// only what it names: without ports it opens 80 for http and ws and 443 for https and wss; raw TCP only with the scheme "tcp" and ports; MCP calls
// only with mcp_server or mcp_tool. A deny or an ask without those covers everything, and one for http covers ws too (https: wss).
// Rules with HTTP conditions (methods, paths, query, headers, body) never match raw TCP, and dns_name only name lookups.
//
// # Doubt
//
// A path can mean different things to different servers (encoded slashes, dot segments, ";" parameters, letter case), a header can be
// there twice, a "when" can fail, a fact can be missing. Then the request is judged both ways and the more severe verdict
// counts: an allow must hold however one reads the request, a deny or an ask already holds if one reading matches. A request that has no
// sound reading (bad encoding, control bytes, an impossible host) is denied before any rule.
//
// # Stages
//
// At a name lookup or a new connection the method and path are not known yet. Possible answers with the mildest verdict that facts still to
// come could bring; so deny means that nothing later could allow it. Decide never hopes: an unknown fact is doubt. An exception is the size of a body that has not
// been sent: Verdict.BodyLimit says how far the verdict holds.
//
// # Git
//
// Rules about git (tables [[git]]) judge what the rules on connections have let through, so they open nothing. They stand in the same layers, and the first
// that matches decides. Where any of them speaks of a host and operation (clone, fetch, push), what none of them matches is denied; of other
// hosts and operations they say nothing. A push is refused as a whole when one of its commands is. The rules of a VM are a list of
// their own, of which the same holds, and the more severe verdict counts. core/inspect/git asks.
//
// # What the guest claims
//
// The process of a request is what the guest's agent says. A guest that is root can lie, so a process may narrow a rule but is no boundary.
package policy
