package mcp

// ServerState is what is known of a server in one VM.
type ServerState struct {
	Name string `json:"name"`
	// Up says that it answers; else Error says why not.
	Up    bool   `json:"up"`
	Error string `json:"error,omitempty"`
	// Title, Version and Protocol are what it says of itself.
	Title    string `json:"title,omitempty"`
	Version  string `json:"version,omitempty"`
	Protocol string `json:"protocol,omitempty"`
	// Tools, Resources and Prompts count what it offers.
	Tools     int `json:"tools"`
	Resources int `json:"resources"`
	Prompts   int `json:"prompts"`
}

// ToolState is one tool in one VM.
type ToolState struct {
	// Name is the full name; Server that of its server.
	Name   string `json:"name"`
	Server string `json:"server"`
	// State says whether it can be called, Why why not.
	State State  `json:"state"`
	Why   string `json:"why,omitempty"`
	Pin   string `json:"pin,omitempty"`
	// Description is the server's.
	Description string `json:"description,omitempty"`
}

// VMReport is the MCP servers of one VM.
type VMReport struct {
	Servers []ServerState `json:"servers"`
	Tools   []ToolState   `json:"tools"`
}

// Report describes servers and tools.
func Report(servers []ServerState, tools []*Entry) VMReport {
	out := VMReport{Servers: servers, Tools: make([]ToolState, 0, len(tools))}
	for _, e := range tools {
		t := ToolState{Name: e.Full, Server: e.Server, State: e.State, Why: e.Why, Pin: e.Pin}
		if e.Tool != nil {
			t.Description = e.Tool.Description
			if t.Name == "" {
				t.Name = Join(e.Server, e.Name)
			}
		}
		out.Tools = append(out.Tools, t)
	}
	return out
}
