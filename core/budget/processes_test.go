package budget

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// spenderEnv makes a process of this test that spends what it gets, a cent at a time, from the file it names.
const spenderEnv = "CAPSEM_TEST_SPENDER"

func TestMain(m *testing.M) {
	if path := os.Getenv(spenderEnv); path != "" {
		os.Exit(spender(path))
	}
	os.Exit(m.Run())
}

// spender writes how often it was allowed to spend.
func spender(path string) int {
	b, err := Open(path, time.UTC)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer b.Close()
	a := b.Account("vm-"+strconv.Itoa(os.Getpid()), "")
	spent := 0
	for {
		h, err := a.Reserve(Amount{Money: 3})
		if e, ok := errors.AsType[*Exceeded](err); ok && e != nil {
			if e.Used+1 <= e.Limit && e.Asked > 1 { // the last cents, if others give some back
				if h, err = a.Reserve(Amount{Money: 1}); err == nil {
					if _, err := h.Settle(Amount{Money: 1}); err != nil {
						return 1
					}
					spent++
					continue
				}
			}
			fmt.Println(spent)
			return 0
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if _, err := h.Settle(Amount{Money: 1}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		spent++
	}
}

func TestProcessesCannotSpendTheLastCentTwice(t *testing.T) {
	const limit, processes = 1000, 4
	path := filepath.Join(t.TempDir(), "budgets")
	b, err := Open(path, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	set(t, b, Scope{Kind: Install}, Day, Money, limit)
	var running []*exec.Cmd
	var outs [processes]strings.Builder
	for i := range processes {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), spenderEnv+"="+path)
		cmd.Stdout, cmd.Stderr = &outs[i], os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		running = append(running, cmd)
	}
	total := 0
	for i, cmd := range running {
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(outs[i].String()))
		if err != nil {
			t.Fatal(err)
		}
		total += n
	}
	// Those that stopped while others held a reservation may leave a few; none may be spent twice.
	if total > limit || total < limit-3*processes {
		t.Fatalf("%d of %d were spent", total, limit)
	}
	lines, err := b.Lines()
	if err != nil || lines[0].Used != int64(total) || lines[0].Held != 0 {
		t.Fatalf("the book says %+v, the processes %d: %v", lines, total, err)
	}
}
