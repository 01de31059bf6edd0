package ledger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capsem/core/store"
)

// copyRecord copies a closed record, with what is beside it, into a directory of its own. The seal over the whole file is left
// out, so that a test shows what the chain alone finds.
func copyRecord(t testing.TB, path string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{DBFile, HeadFile} {
		data, err := os.ReadFile(filepath.Join(filepath.Dir(path), name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, DBFile)
}

func has(r *Report, what, table string, row int64) bool {
	for _, p := range r.Problems {
		if p.What == what && p.Table == table && p.Row == row {
			return true
		}
	}
	return false
}

func TestOneChangedCellOfAnyColumnIsFound(t *testing.T) {
	key := testKey(t)
	base := filled(t, key, testSession, 4)
	for i := range tables {
		t.Run(tables[i].kind, func(t *testing.T) {
			path := copyRecord(t, base)
			for _, column := range tables[i].columns {
				name := tables[i].name
				old := query(t, path, "SELECT quote("+column+") FROM "+name+" WHERE id=3")[0][0].(string)
				for _, value := range []string{"CAST(" + column + " AS TEXT)||'x'", "NULL", "CAST(CAST(" + column + " AS TEXT) AS BLOB)"} {
					if column == timestampColumn && value == "NULL" {
						continue // SQLite itself refuses
					}
					tamper(t, path, "UPDATE "+name+" SET "+column+"="+value+" WHERE id=3")
					r := verify(t, path, key)
					if !has(&r, "changed", name, 3) || r.ProblemCount != 1 {
						t.Fatalf("%s = %s: %v", column, value, r.Problems)
					}
					tamper(t, path, "UPDATE "+name+" SET "+column+"="+old+" WHERE id=3")
				}
			}
			if r := verify(t, path, key); !r.OK() {
				t.Fatalf("put back: %v", r.Problems)
			}
		})
	}
}

func TestTamperedRecordsAreFound(t *testing.T) {
	key := testKey(t)
	base := filled(t, key, testSession, 10)
	columns := strings.Join(tables[fileTable].columns, ",")
	tests := map[string]struct {
		sql  []string
		what string
	}{
		"row deleted":               {[]string{"DELETE FROM fs_events WHERE id=4"}, "removed"},
		"first row deleted":         {[]string{"DELETE FROM fs_events WHERE id=1"}, "removed"},
		"last row deleted":          {[]string{"DELETE FROM fs_events WHERE id=10"}, "removed"},
		"whole table emptied":       {[]string{"DELETE FROM net_events"}, "removed"},
		"row and its link deleted":  {[]string{"DELETE FROM fs_events WHERE id=4", "DELETE FROM chain WHERE table_name='fs_events' AND row_id=4"}, "removed"},
		"row added":                 {[]string{"INSERT INTO fs_events VALUES (99,'2026-11-23T12:00:00.000000Z','created','x',1,1)"}, "added"},
		"row added before":          {[]string{"INSERT INTO fs_events VALUES (-1,'2026-11-23T12:00:00.000000Z','created','x',1,1)"}, "added"},
		"row duplicated":            {[]string{"INSERT INTO fs_events SELECT 50," + columns + " FROM fs_events WHERE id=2"}, "added"},
		"row and link added at end": {[]string{"INSERT INTO fs_events VALUES (11,'2026-11-23T12:00:00.000000Z','created','x',1,1)", "INSERT INTO chain VALUES (151,'fs_events',11,zeroblob(32))"}, "changed"},
		"rows swapped":              {[]string{"UPDATE fs_events SET id=100 WHERE id=2", "UPDATE fs_events SET id=2 WHERE id=3", "UPDATE fs_events SET id=3 WHERE id=100"}, "changed"},
		"links swapped":             {[]string{"UPDATE chain SET seq=1000 WHERE seq=20", "UPDATE chain SET seq=20 WHERE seq=21", "UPDATE chain SET seq=21 WHERE seq=1000"}, "changed"},
		"links of a table swapped": {[]string{
			"UPDATE chain SET row_id=1000 WHERE table_name='fs_events' AND row_id=2", "UPDATE chain SET row_id=2 WHERE table_name='fs_events' AND row_id=3",
			"UPDATE chain SET row_id=3 WHERE table_name='fs_events' AND row_id=1000",
		}, "reordered"},
		"link points elsewhere":   {[]string{"UPDATE chain SET table_name='dns_events' WHERE seq=5"}, "reordered"},
		"link names no table":     {[]string{"UPDATE chain SET table_name='sqlite_master' WHERE seq=5"}, "changed"},
		"hash changed":            {[]string{"UPDATE chain SET hash=zeroblob(32) WHERE seq=30"}, "changed"},
		"hash cut":                {[]string{"UPDATE chain SET hash=x'00' WHERE seq=30"}, "changed"},
		"gap in the chain":        {[]string{"DELETE FROM chain WHERE seq BETWEEN 30 AND 40"}, "removed"},
		"negative link":           {[]string{"INSERT INTO chain VALUES (-5,'fs_events',1,zeroblob(32))"}, "added"},
		"tail dropped":            {[]string{"DELETE FROM chain WHERE seq>100", "DELETE FROM drop_events WHERE id>7"}, "truncated"},
		"all dropped":             {append([]string{"DELETE FROM chain", "DELETE FROM heads"}, deleteAll()...), "truncated"},
		"last head deleted":       {[]string{"DELETE FROM heads WHERE number=2"}, "truncated"},
		"first head deleted":      {[]string{"DELETE FROM heads WHERE number=1"}, "head"},
		"head moved":              {[]string{"UPDATE heads SET seq=seq-1 WHERE number=2"}, "head"},
		"head's hash changed":     {[]string{"UPDATE heads SET hash=zeroblob(32) WHERE number=1"}, "head"},
		"head's time changed":     {[]string{"UPDATE heads SET timestamp='2020-01-01T00:00:00.000000Z' WHERE number=1"}, "head"},
		"signature changed":       {[]string{"UPDATE heads SET signature=zeroblob(64) WHERE number=2"}, "head"},
		"signature cut":           {[]string{"UPDATE heads SET signature=x'' WHERE number=2"}, "head"},
		"head of nonsense":        {[]string{"UPDATE heads SET seq='many' WHERE number=2"}, "head"},
		"session renamed":         {[]string{"UPDATE ledger SET session='other'"}, "session"},
		"no session":              {[]string{"DELETE FROM ledger"}, "session"},
		"two sessions":            {[]string{"INSERT INTO ledger VALUES ('x','',1)"}, "session"},
		"format of nonsense":      {[]string{"UPDATE ledger SET format='x'"}, "session"},
		"table behind a view":     {[]string{"ALTER TABLE fs_events RENAME TO hidden", "CREATE VIEW fs_events AS SELECT * FROM hidden"}, "schema"},
		"trigger":                 {[]string{"CREATE TRIGGER t AFTER INSERT ON fs_events BEGIN DELETE FROM fs_events; END"}, "schema"},
		"table added":             {[]string{"CREATE TABLE more (x)"}, "schema"},
		"index dropped":           {[]string{"DROP INDEX fs_events_path"}, "schema"},
		"column added":            {[]string{"ALTER TABLE fs_events ADD COLUMN more TEXT"}, "schema"},
		"fraction of a number":    {[]string{"UPDATE net_events SET port=443.5 WHERE id=1"}, "changed"},
		"drop count made smaller": {[]string{"UPDATE drop_events SET count=0 WHERE id=1"}, "changed"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := copyRecord(t, base)
			tamper(t, path, test.sql...)
			r := verify(t, path, key)
			for _, p := range r.Problems {
				if p.What == test.what && p.Detail != "" && p.String() != "" {
					return
				}
			}
			t.Fatalf("no %q among %v", test.what, r.Problems)
		})
	}
}

func deleteAll() []string {
	var out []string
	for i := range tables {
		out = append(out, "DELETE FROM "+tables[i].name)
	}
	return out
}

// A forger who knows how links are made, but not the key, makes a chain that fits itself and not the signature.
func TestForgedChainDoesNotFitItsSignedHead(t *testing.T) {
	key := testKey(t)
	path := copyRecord(t, filled(t, key, testSession, 6))
	other := testKey(t)
	forged := filled(t, other, testSession, 6)
	tamper(t, forged, "DELETE FROM heads", "ATTACH '"+path+"' AS true_one", "INSERT INTO heads SELECT * FROM true_one.heads")
	if err := os.Rename(filepath.Join(filepath.Dir(path), HeadFile), filepath.Join(filepath.Dir(forged), HeadFile)); err != nil {
		t.Fatal(err)
	}
	tamper(t, forged, "UPDATE net_events SET domain='evil.example' WHERE id=2")
	rechain(t, forged)
	r := verify(t, forged, key)
	found := false
	for _, p := range r.Problems {
		found = found || (p.What == "changed" && strings.Contains(p.Detail, "not the one that was signed"))
	}
	if !found || r.Signed != 0 {
		t.Fatalf("%+v", r)
	}
}

// rechain makes all links fit the rows again.
func rechain(t *testing.T, path string) {
	t.Helper()
	c, err := newChainer()
	if err != nil {
		t.Fatal(err)
	}
	prev := genesis(testSession)
	for _, l := range query(t, path, "SELECT seq, table_name, row_id FROM chain ORDER BY seq") {
		i, _ := tableNamed(l[1].(string))
		row := query(t, path, fmt.Sprintf("SELECT '%s', id, %s FROM %s WHERE id=%d", l[1], strings.Join(tables[i].columns, ","), l[1], l[2]))[0]
		if prev, err = c.next(&prev, row); err != nil {
			t.Fatal(err)
		}
		tamper(t, path, fmt.Sprintf("UPDATE chain SET hash=x'%x' WHERE seq=%d", prev[:], l[0]))
	}
}

func TestHeadsBelongToTheirSession(t *testing.T) {
	key := testKey(t)
	a := copyRecord(t, filled(t, key, testSession, 5))
	b := copyRecord(t, filled(t, key, "20261123-130000-ffff", 5))
	headA, headB := filepath.Join(filepath.Dir(a), HeadFile), filepath.Join(filepath.Dir(b), HeadFile)
	keep, err := os.ReadFile(headB)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(headA, headB); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(headA, keep, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{a, b} {
		r, err := Verify(t.Context(), path, Expect{Key: public(key)})
		if err != nil || r.OK() || r.Problems[0].What != "head" {
			t.Errorf("%v %+v", err, r)
		}
	}
	tamper(t, a, "DELETE FROM heads", "ATTACH '"+b+"' AS b", "INSERT INTO heads SELECT * FROM b.heads")
	if r := verify(t, a, key); r.ProblemCount < 2 {
		t.Errorf("heads of another session: %+v", r)
	}
	if r := verify(t, b, key); !strings.Contains(fmt.Sprint(r.Problems), "not \""+testSession) {
		t.Errorf("whole record of another session: %+v", r)
	}
}

func TestSideFileIsChecked(t *testing.T) {
	key := testKey(t)
	base := filled(t, key, testSession, 6)
	head := func(path string) string { return filepath.Join(filepath.Dir(path), HeadFile) }
	tests := map[string]func(t *testing.T, path string){
		"missing": func(t *testing.T, path string) { check(t, os.Remove(head(path))) },
		"empty":   func(t *testing.T, path string) { check(t, os.WriteFile(head(path), nil, 0o600)) },
		"huge":    func(t *testing.T, path string) { check(t, os.WriteFile(head(path), make([]byte, 1<<20), 0o600)) },
		"a link": func(t *testing.T, path string) {
			check(t, os.Remove(head(path)))
			check(t, os.Symlink(filepath.Join(filepath.Dir(base), HeadFile), head(path)))
		},
		"another key's": func(t *testing.T, path string) {
			h, err := ReadHead(path)
			check(t, err)
			check(t, h.sign(headContext, testKey(t), testTime))
			check(t, writeSigned(head(path), h))
		},
		"a seal in its place": func(t *testing.T, path string) {
			h, err := ReadHead(path)
			check(t, err)
			check(t, h.sign(sealContext, key, testTime))
			check(t, writeSigned(head(path), h))
		},
		"never in the record": func(t *testing.T, path string) {
			h, err := ReadHead(path)
			check(t, err)
			h.Hash[0]++
			check(t, h.sign(headContext, key, testTime))
			check(t, writeSigned(head(path), h))
		},
		"ahead": func(t *testing.T, path string) {
			h, err := ReadHead(path)
			check(t, err)
			h.Number, h.Seq = h.Number+1, h.Seq+5
			check(t, h.sign(headContext, key, testTime))
			check(t, writeSigned(head(path), h))
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			path := copyRecord(t, base)
			change(t, path)
			if r := verify(t, path, key); r.OK() {
				t.Fatal("not found")
			}
		})
	}
}

func TestAnchorFindsARecordThatWasRolledBackAsAWhole(t *testing.T) {
	key := testKey(t)
	path := filepath.Join(t.TempDir(), DBFile)
	w := open(t, path, testOptions(t, key))
	w.Record(Lifecycle{Event: "one"})
	closeWriter(t, w)
	old := copyRecord(t, path)
	w = open(t, path, testOptions(t, key))
	w.Record(Lifecycle{Event: "two"})
	closeWriter(t, w)
	head, err := ReadHead(path)
	check(t, err)
	want := Expect{Key: public(key), Session: testSession, Seq: head.Seq, Hash: head.Hash}
	r, err := Verify(t.Context(), path, want)
	if err != nil || !r.OK() {
		t.Fatal(err, r)
	}
	if r, err = Verify(t.Context(), old, want); err != nil || !has(&r, "truncated", "", 0) {
		t.Fatal(err, r)
	}
}

// One flipped byte anywhere in a closed file is found, even where no row is.
func TestAnyFlippedByteOfAClosedFileIsFound(t *testing.T) {
	key := testKey(t)
	path := filled(t, key, testSession, 3)
	if r := verify(t, path, key); !r.OK() {
		t.Fatal(r.Problems)
	}
	data, err := os.ReadFile(path)
	check(t, err)
	for at := 7; at < len(data); at += 2003 {
		data[at] ^= 0x10
		check(t, os.WriteFile(path, data, 0o600))
		r, err := Verify(t.Context(), path, Expect{Key: public(key)})
		if err == nil && r.OK() {
			t.Fatalf("byte %d", at)
		}
		data[at] ^= 0x10
	}
	check(t, os.WriteFile(path, data, 0o600))
	if r := verify(t, path, key); !r.OK() {
		t.Fatal(r.Problems)
	}
}

func TestVerifyWritesNothing(t *testing.T) {
	key := testKey(t)
	path := filled(t, key, testSession, 3)
	before, err := os.ReadDir(filepath.Dir(path))
	check(t, err)
	check(t, os.Chmod(filepath.Dir(path), 0o500))
	verify(t, path, key)
	after, err := os.ReadDir(filepath.Dir(path))
	check(t, err)
	if len(before) != len(after) || len(after) != 3 {
		t.Fatalf("%v, then %v", before, after)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A reader at work keeps Close from leaving one plain file; the record must be as good.
func TestRecordClosedBesideAReaderVerifies(t *testing.T) {
	key := testKey(t)
	path := filepath.Join(t.TempDir(), DBFile)
	w := open(t, path, testOptions(t, key))
	w.Record(Lifecycle{Event: "one"})
	check(t, w.Flush(t.Context()))
	r, err := store.OpenReader(t.Context(), path)
	check(t, err)
	rows, err := r.DB().QueryContext(t.Context(), "SELECT * FROM chain")
	check(t, err)
	if !rows.Next() {
		t.Fatal(rows.Err())
	}
	w.Record(Lifecycle{Event: "two"})
	err = w.Close(t.Context())
	t.Log("Close:", err)
	check(t, errors.Join(rows.Close(), r.Close()))
	if r := verify(t, path, key); !r.OK() || r.Rows != 2 || r.Signed != 2 {
		t.Fatalf("%+v", r)
	}
	kept := filepath.Join(t.TempDir(), testSession)
	check(t, Keep(t.Context(), filepath.Dir(path), kept))
	path = filepath.Join(kept, DBFile)
	if r := verify(t, path, key); !r.OK() || r.Rows != 2 || r.Signed != 2 {
		t.Fatalf("%+v", r)
	}
	closeWriter(t, open(t, path, testOptions(t, key)))
	if r := verify(t, path, key); !r.OK() || r.Rows != 2 {
		t.Fatalf("%+v", r)
	}
}
