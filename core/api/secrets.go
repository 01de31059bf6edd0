package api

// SecretRequest stores a secret: PUT /secrets/{name}. Its body is never logged.
type SecretRequest struct {
	// Kind is anthropic, openai, google, github, gitlab or generic; empty is told by how the value begins.
	Kind string `json:"kind,omitempty"`
	// Value is the secret; with SignIn it is the file in which a command line keeps its sign-in.
	Value  string `json:"value"`
	SignIn bool   `json:"sign_in,omitempty"`
	// User makes it a password.
	User string `json:"user,omitempty"`
	// Hosts are where it may go, Places ("header", "header:NAME", "basic", "query:NAME", "json:NAME") the parts of requests it is put
	// into, Env the variables of the guest that get its placeholder. Empty is what the kind says.
	Hosts  []string `json:"hosts,omitempty"`
	Places []string `json:"places,omitempty"`
	Env    []string `json:"env,omitempty"`
}

// Secret is a stored secret without what is secret of it.
type Secret struct {
	Name   string   `json:"name"`
	Kind   string   `json:"kind"`
	Form   string   `json:"form"`
	Hosts  []string `json:"hosts"`
	Places []string `json:"places"`
	Env    []string `json:"env,omitempty"`
	User   string   `json:"user,omitempty"`
	// Updated is when it was stored, Expires when a sign-in's token ends: both RFC 3339.
	Updated string `json:"updated"`
	Expires string `json:"expires,omitempty"`
	// Note is what its owner should know, such as why it cannot be renewed.
	Note string `json:"note,omitempty"`
}

// SecretsReply is every stored secret.
type SecretsReply struct {
	Secrets []Secret `json:"secrets"`
	// Presets are those of the policy that the secrets open.
	Presets []string `json:"presets"`
}

// SecretTest is what its provider says to a secret.
type SecretTest struct {
	Good   bool   `json:"good"`
	Status int    `json:"status,omitempty"`
	Detail string `json:"detail"`
}
