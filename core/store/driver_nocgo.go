//go:build !cgo

package store

import (
	"context"
	"database/sql/driver"

	"capsem/core/fault"
)

// connect stands in where capsem was built without cgo, as the type checks of other platforms are: it opens nothing.
type connect struct{}

func connector(string, *guard) driver.Connector { return connect{} }

func (connect) Connect(context.Context) (driver.Conn, error) {
	return nil, fault.New(fault.Unavailable, "this capsem was built without SQLite").WithHint("build it with CGO_ENABLED=1")
}

func (c connect) Driver() driver.Driver { return c }

func (connect) Open(string) (driver.Conn, error) { return connect{}.Connect(nil) } //nolint:staticcheck // it is not used

func kindOf(error) kind { return other }
