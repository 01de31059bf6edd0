//go:build linux

// Package layout is every name that the guest's own programs agree on: where their binaries, sockets and records are.
package layout

// Names in the running guest.
const (
	// RunDir holds all that is below; a tmpfs.
	RunDir = "/run/capsem"
	// BinDir holds the guest binaries, read-only: one file under each of Programs.
	BinDir = RunDir + "/bin"
	// LinkSocket is where guest programs reach the host through the agent.
	LinkSocket = RunDir + "/link.sock"
	// BootReport is a stage.Report of the boot, for the agent.
	BootReport = RunDir + "/boot"
	// GraceFile holds, in milliseconds, how long processes get to end when PID 1 is told to power off or reboot.
	GraceFile = RunDir + "/grace_ms"
	// LowerDir is the read-only root file system under the overlay; SystemDir the ext4 that holds its upper layer.
	LowerDir  = RunDir + "/lower"
	SystemDir = RunDir + "/system"
	// CgroupDir is the cgroup v2 tree of commands.
	CgroupDir = "/sys/fs/cgroup/capsem"
	// Bashrc configures shells on a terminal.
	Bashrc = "/etc/capsem/bashrc"
	// MCPServer is the command that agents are configured with.
	MCPServer = "/usr/local/bin/capsem-mcp-server"
	// Home is where commands run unless told otherwise.
	Home = "/root"
)

// Programs are the names of the guest binary in BinDir.
func Programs() []string {
	return []string{"init", "agent", "sysutil", "doctor", "snapshots", "mcp-server"}
}

// Link is a symbolic link at Path to one of the Programs.
type Link struct{ Path, Program string }

// Target is where it leads.
func (l Link) Target() string { return BinDir + "/" + l.Program }

// Links are the names under which commands find our programs.
func Links() []Link {
	return []Link{
		{"/sbin/shutdown", "sysutil"},
		{"/sbin/halt", "sysutil"},
		{"/sbin/poweroff", "sysutil"},
		{"/sbin/reboot", "sysutil"},
		{"/usr/local/bin/suspend", "sysutil"},
		{"/usr/local/bin/snapshots", "snapshots"},
		{MCPServer, "mcp-server"},
	}
}
