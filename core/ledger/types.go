package ledger

import "capsem/core/api"

// What is told of records to the outside is defined by the API.
type (
	// Session is one row of main.db.
	Session = api.Session
	// Entry is one event, Page a part of a history.
	Entry = api.RecordEntry
	// Page is a part of a history, newest first.
	Page = api.HistoryPage
	// Totals are the sums over one record.
	Totals = api.RecordTotals
	// DomainCount is one name and its requests.
	DomainCount = api.DomainCount
	// ModelCount is one model and what it was used for.
	ModelCount = api.ModelCount
	// ProcessCount is one program that was started in the guest.
	ProcessCount = api.ProcessCount
	// Problem is one thing that is wrong with a record, Report all that was found.
	Problem = api.RecordProblem
	// Report is what Verify found.
	Report = api.VerifyReport
)
