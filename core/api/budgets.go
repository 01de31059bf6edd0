package api

// Budget is one limit and what of it is used, or what is used without a limit.
type Budget struct {
	// Scope is "install", "image" or "vm"; Name the image's, or that of the VM, with its forks where there are any.
	Scope string `json:"scope"`
	Name  string `json:"name,omitempty"`
	// Period is "session" or "day", Meter "money" (in billionths of a dollar), "tokens", "requests" or "bytes".
	Period string `json:"period"`
	Meter  string `json:"meter"`
	// Limit is nil where there is none.
	Limit *int64 `json:"limit,omitempty"`
	// Used is spent; Held is taken by requests on their way, or by those whose VM was killed under them.
	Used int64 `json:"used"`
	Held int64 `json:"held,omitempty"`
}

// BudgetsReply is all budgets.
type BudgetsReply struct {
	Budgets []Budget `json:"budgets"`
}

// BudgetRequest sets a limit, or removes it.
type BudgetRequest struct {
	// Scope is "install", "image" or "vm"; Name the image's or the VM's.
	Scope string `json:"scope"`
	Name  string `json:"name,omitempty"`
	// Period is "session" or "day", Meter "money" (in billionths of a dollar), "tokens", "requests" or "bytes".
	Period string `json:"period"`
	Meter  string `json:"meter"`
	// Limit is the limit; nil removes it.
	Limit *int64 `json:"limit"`
}

// BudgetResetRequest begins to count anew.
type BudgetResetRequest struct {
	// Scope is "install", "image" or "vm"; Name the image's or the VM's.
	Scope string `json:"scope,omitempty"`
	Name  string `json:"name,omitempty"`
	// All forgets every budget, limits too.
	All bool `json:"all,omitempty"`
}
