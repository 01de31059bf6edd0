package ledger

import (
	"testing"

	"capsem/core/store"
)

func TestARecordOfAnOlderSchemaIsRead(t *testing.T) {
	key := testKey(t)
	whole := schema
	for version := 1; version < len(whole); version++ {
		path := t.TempDir() + "/" + DBFile
		db, err := store.Open(t.Context(), path, whole[:version])
		check(t, err)
		check(t, db.Close(t.Context()))
		_, err = History(t.Context(), path, Filter{})
		check(t, err)
		_, err = Stats(t.Context(), path)
		check(t, err)
		r := verify(t, path, key)
		for _, p := range r.Problems {
			if p.What == "schema" {
				t.Errorf("version %d: %+v", version, p)
			}
		}
	}
}
