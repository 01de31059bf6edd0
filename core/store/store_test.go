package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"capsem/core/fault"
)

var testSchema = Schema{
	"CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT); CREATE INDEX t_x ON t(x)",
	"ALTER TABLE t ADD COLUMN y INTEGER",
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func codeOf(err error) fault.Code {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f.Code
	}
	return ""
}

func closeDB(t testing.TB, db *DB) {
	t.Helper()
	check(t, db.Close(context.WithoutCancel(t.Context())))
}

func sample(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a dir with ?#%20 in it", "x.db")
	db, err := Open(t.Context(), path, testSchema)
	check(t, err)
	check(t, db.Update(t.Context(), func(tx *sql.Tx) error {
		for i := range 100 {
			if _, err := tx.ExecContext(t.Context(), "INSERT INTO t (x, y) VALUES (?,?)", strings.Repeat("x", i), i); err != nil {
				return err
			}
		}
		return nil
	}))
	closeDB(t, db)
	return path
}

func TestClosedDatabaseIsOnePlainPrivateFile(t *testing.T) {
	path := sample(t)
	files, err := os.ReadDir(filepath.Dir(path))
	check(t, err)
	if len(files) != 1 || files[0].Name() != "x.db" {
		t.Fatal(files)
	}
	info, err := os.Stat(path)
	check(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Fatal(info.Mode())
	}
}

func TestWritingConnectionIsSetUp(t *testing.T) {
	db, err := Open(t.Context(), sample(t), testSchema)
	check(t, err)
	defer closeDB(t, db)
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "1", "foreign_keys": "1", "busy_timeout": "5000", "trusted_schema": "0"} {
		var got string
		check(t, db.Conn().QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got))
		if got != want {
			t.Errorf("%s is %s", pragma, got)
		}
	}
	if _, err := db.Conn().ExecContext(t.Context(), "SELECT load_extension('x')"); err == nil {
		t.Error("extensions can be loaded")
	}
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	path := sample(t)
	db, err := Open(t.Context(), path, testSchema)
	check(t, err)
	defer closeDB(t, db)
	mine := errors.New("mine")
	err = db.Update(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(t.Context(), "DELETE FROM t")
		return errors.Join(err, mine)
	})
	if !errors.Is(err, mine) {
		t.Fatal(err)
	}
	var n int
	check(t, db.Conn().QueryRowContext(t.Context(), "SELECT count(*) FROM t").Scan(&n))
	if n != 100 {
		t.Fatal(n)
	}
}

func TestMigrationGoesOnFromAnyVersion(t *testing.T) {
	for from := range len(testSchema) + 1 {
		path := filepath.Join(t.TempDir(), "x.db")
		if from == 0 {
			check(t, os.WriteFile(path, nil, 0o600))
		} else {
			db, err := Open(t.Context(), path, testSchema[:from])
			check(t, err)
			_, err = db.Conn().ExecContext(t.Context(), "INSERT INTO t (x) VALUES ('kept')")
			check(t, err)
			closeDB(t, db)
		}
		db, err := Open(t.Context(), path, testSchema)
		check(t, err)
		version, err := Version(t.Context(), db.Conn())
		check(t, err)
		var rows int
		check(t, db.Conn().QueryRowContext(t.Context(), "SELECT count(*) FROM t WHERE x='kept' AND y IS NULL").Scan(&rows))
		if version != len(testSchema) || rows != min(from, 1) {
			t.Errorf("from %d: version %d, %d rows", from, version, rows)
		}
		have, err := Objects(t.Context(), db.Conn())
		check(t, err)
		want, err := testSchema.Expected(t.Context(), version)
		check(t, err)
		if len(have) != 3 || len(want) != 3 || have["table t"] != want["table t"] {
			t.Errorf("from %d: %v, expected %v", from, have, want)
		}
		closeDB(t, db)
	}
}

func TestFailedMigrationLeavesTheOldVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db, err := Open(t.Context(), path, testSchema[:1])
	check(t, err)
	closeDB(t, db)
	if _, err := Open(t.Context(), path, append(testSchema[:2:2], "CREATE TABLE more (x)", "NONSENSE")); err == nil {
		t.Fatal("opened")
	}
	db, err = Open(t.Context(), path, testSchema[:1])
	check(t, err)
	closeDB(t, db)
	if _, err := Open(t.Context(), sample(t), testSchema[:1]); codeOf(err) != fault.Conflict {
		t.Fatal("a newer database was opened:", err)
	}
}

func TestWhatIsNoDatabaseIsRefused(t *testing.T) {
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk.db")
	check(t, os.WriteFile(junk, []byte(strings.Repeat("this is no database ", 100)), 0o600))
	if _, err := Open(t.Context(), junk, testSchema); codeOf(err) != fault.Internal || !Damaged(err) {
		t.Error(err)
	}
	link := filepath.Join(dir, "link.db")
	check(t, os.Symlink(sample(t), link))
	if _, err := Open(t.Context(), link, testSchema); err == nil {
		t.Error("a link was followed")
	}
	if _, err := Inspect(t.Context(), link, "SELECT 1"); codeOf(err) != fault.Invalid {
		t.Error(err)
	}
	if _, err := Inspect(t.Context(), filepath.Join(dir, "none"), "SELECT 1"); codeOf(err) != fault.NotFound {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "none")); err == nil {
		t.Error("inspecting made a file")
	}
	if _, err := Inspect(t.Context(), junk, "SELECT * FROM t"); codeOf(err) != fault.Internal {
		t.Error(err)
	}
}

func TestInspectAnswers(t *testing.T) {
	path := sample(t)
	r, err := Inspect(t.Context(), path, "SELECT id, x AS name, 1.5, NULL, x'00ff' FROM t WHERE id<3 ORDER BY id")
	check(t, err)
	if strings.Join(r.Columns, ",") != "id,name,1.5,NULL,x'00ff'" || len(r.Rows) != 2 || r.Truncated {
		t.Fatalf("%+v", r)
	}
	if row := r.Rows[1]; row[0] != int64(2) || row[1] != "x" || row[2] != 1.5 || row[3] != nil || string(row[4].([]byte)) != "\x00\xff" {
		t.Fatalf("%+v", row)
	}
	for _, good := range []string{
		"WITH a AS (SELECT 1) SELECT * FROM a", "EXPLAIN QUERY PLAN SELECT * FROM t", "VALUES (1)", " \n-- why\nSELECT 1", "/* x */ SELECT 1", "(SELECT 1)",
		"WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c WHERE n<10) SELECT n FROM c", "SELECT name FROM sqlite_master", "SELECT * FROM pragma_table_info('t')",
		"SELECT upper(x), count(*) OVER () FROM t", "SELECT x FROM t WHERE x LIKE '%a%' GROUP BY 1 HAVING count(*)>0",
	} {
		if _, err := Inspect(t.Context(), path, good); err != nil && !strings.HasPrefix(good, "(") {
			t.Errorf("%s: %v", good, err)
		}
	}
}

func TestInspectRefusesAllButReading(t *testing.T) {
	path := sample(t)
	before, err := os.ReadFile(path)
	check(t, err)
	other := filepath.Join(t.TempDir(), "other.db")
	for _, bad := range []string{
		"DELETE FROM t", "INSERT INTO t VALUES (1,2,3)", "UPDATE t SET x=1", "DROP TABLE t", "CREATE TABLE u (x)", "CREATE TEMP TABLE u (x)", "VACUUM",
		"VACUUM INTO '" + other + "'", "ATTACH '" + other + "' AS o", "DETACH main", "PRAGMA query_only=OFF", "PRAGMA journal_mode", "PRAGMA writable_schema=ON",
		"BEGIN", "BEGIN IMMEDIATE", "REINDEX", "ANALYZE", "SAVEPOINT x", "SELECT 1; DELETE FROM t", "SELECT 1; ATTACH '" + other + "' AS o", "-- x\nDELETE FROM t",
		"/* SELECT */ DROP TABLE t", "WITH a AS (SELECT 1) DELETE FROM t", "WITH a AS (SELECT 1) INSERT INTO t(x) SELECT * FROM a", "SELECT load_extension('/x')",
		"EXPLAIN DELETE FROM t", "SELECT 1; PRAGMA query_only=OFF; DELETE FROM t", "SELECT * FROM pragma_journal_mode", "REPLACE INTO t VALUES (1,1,1)", "",
		"SELECT x FROM nothing", "SELECT", "SELECT 1\x00", "SELECT fts3_tokenizer('x')", "CREATE VIRTUAL TABLE v USING fts3(x)", "SELECT '" + strings.Repeat("x", maxSQL) + "'",
	} {
		if r, err := Inspect(t.Context(), path, bad); codeOf(err) == "" {
			t.Errorf("%.80q: %v %v", bad, r, err)
		}
	}
	after, err := os.ReadFile(path)
	check(t, err)
	if !bytes.Equal(before, after) {
		t.Error("the file changed")
	}
	if _, err := os.Stat(other); err == nil {
		t.Error("another file was made")
	}
}

func TestInspectIsBounded(t *testing.T) {
	path := sample(t)
	const forever = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c) "
	r, err := Inspect(t.Context(), path, forever+"SELECT n FROM c")
	if err != nil || len(r.Rows) != MaxRows || !r.Truncated {
		t.Error(len(r.Rows), r.Truncated, err)
	}
	r, err = Inspect(t.Context(), path, forever+"SELECT hex(zeroblob(1000000)) FROM c")
	if err != nil || len(r.Rows) > 20 || !r.Truncated {
		t.Error(len(r.Rows), r.Truncated, err)
	}
	if _, err := Inspect(t.Context(), path, "SELECT zeroblob(100000000)"); codeOf(err) == "" {
		t.Error("a huge value:", err)
	}
	for _, slow := range []string{forever + "SELECT count(*) FROM c", "SELECT count(*) FROM t a, t b, t c, t d, t e, t f"} {
		begin := time.Now()
		if _, err := inspect(t.Context(), path, slow, 200*time.Millisecond); codeOf(err) != fault.Timeout || time.Since(begin) > 3*time.Second {
			t.Errorf("%s: %v after %v", slow, err, time.Since(begin))
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Inspect(ctx, path, forever+"SELECT count(*) FROM c"); err == nil {
		t.Error("a caller that went away was not noticed")
	}
}

func TestReaderCannotWrite(t *testing.T) {
	path := sample(t)
	r, err := OpenReader(t.Context(), path)
	check(t, err)
	if _, err := r.DB().ExecContext(t.Context(), "DELETE FROM t"); codeOf(Explain(err, path)) != fault.Forbidden {
		t.Error(err)
	}
	check(t, r.Close())
}

func FuzzInspect(f *testing.F) {
	path := sample(f)
	want, err := os.ReadFile(path)
	check(f, err)
	for _, s := range []string{"SELECT 1", "WITH a AS (SELECT 1) DELETE FROM t", "EXPLAIN SELECT * FROM t", "VALUES(1);PRAGMA x", "--\nATTACH 'a' AS b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		_, _ = inspect(t.Context(), path, text, 100*time.Millisecond)
		have, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(have, want) {
			t.Fatalf("%q changed the database: %v", text, err)
		}
	})
}
