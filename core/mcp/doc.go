// Package mcp is what the owner's MCP servers offer to a VM: one catalogue of the tools of all servers, under names that cannot be taken
// for one another, of which only those are offered that the owner has approved as they are.
//
// Everything a server says is hostile: a description is read by a model. So a tool is pinned: its description, schemas and annotations
// are hashed, and one that is new or has changed is held back until the owner approves it.
package mcp
