package ledger

import (
	"testing"

	"capsem/core/store"
)

func TestARecordOfAnOlderSchemaIsRead(t *testing.T) {
	key := testKey(t)
	whole := schema
	schema = store.Schema{schemaV1}
	version := 1
	path := t.TempDir() + "/" + DBFile
	db, err := store.Open(t.Context(), path, schema)
	schema = whole
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
