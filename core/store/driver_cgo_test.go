//go:build cgo

package store

import (
	"testing"

	"github.com/mattn/go-sqlite3"
)

func TestNumbersAreSQLites(t *testing.T) {
	for name, pair := range map[string][2]int{
		"length":     {limitLength, sqlite3.SQLITE_LIMIT_LENGTH},
		"sql length": {limitSQL, sqlite3.SQLITE_LIMIT_SQL_LENGTH},
		"columns":    {limitColumns, sqlite3.SQLITE_LIMIT_COLUMN},
		"depth":      {limitDepth, sqlite3.SQLITE_LIMIT_EXPR_DEPTH},
		"attached":   {limitAttached, sqlite3.SQLITE_LIMIT_ATTACHED},
		"workers":    {limitWorkers, sqlite3.SQLITE_LIMIT_WORKER_THREADS},
		"ok":         {answerOK, sqlite3.SQLITE_OK},
		"deny":       {answerDeny, sqlite3.SQLITE_DENY},
		"pragma":     {opPragma, sqlite3.SQLITE_PRAGMA},
		"read":       {opRead, sqlite3.SQLITE_READ},
		"select":     {opSelect, sqlite3.SQLITE_SELECT},
		"function":   {opFunction, sqlite3.SQLITE_FUNCTION},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %d, not %d", name, pair[1], pair[0])
		}
	}
}
