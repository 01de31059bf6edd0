// Package approval holds what a policy wants to ask the owner about, until somebody answers.
//
// A Judge is a policy and a Board: an allow or a deny it gives at once, for an ask it holds the request. The Board shows the questions to
// every surface (List, Watch) and takes answers from any (Answer); a question that nobody answers in time is a deny.
//
// # What an answer allows
//
// An approval never covers more than the question showed:
//
//	once     the requests that wait for this question: the same VM, rule, method, URL with query, size, tool and process. What differs
//	         in any of these is a question of its own.
//	session  as long as the VM lives, what the same rule asks about with the same scheme, host, port, method and path (for MCP: server
//	         and tool), with any query, body and process. With the reach "host": on any path.
//	always   the same as a rule of the owner's, which the caller adds to user.toml before the rule that asked. Not offered where such a
//	         rule would not help (corp and the VM itself ask) or would open more (the asking rule looks at query, headers, body, process,
//	         "when" or, for the reach "host", at paths, which the new rule does not).
//
// The choices, and in words what each allows, are part of the question. A deny holds for those who wait only. Lookups of names are never
// held: a policy cannot ask about them, and where the connection will be asked about, the lookup goes on.
package approval
