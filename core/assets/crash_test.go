package assets

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"capsem/core/paths"
)

// publisherHome makes this test binary a process that publishes and refreshes images there until it is killed.
const publisherHome = "CAPSEM_TEST_PUBLISHER_HOME"

func TestPublisherProcess(t *testing.T) {
	home := paths.Home(os.Getenv(publisherHome))
	if home == "" {
		return // not started by the tests below
	}
	rounds, err := strconv.Atoi(os.Getenv("CAPSEM_TEST_PUBLISHER_ROUNDS"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("begin")
	for i := range rounds {
		install(t, home, "amd64", strconv.Itoa(os.Getpid()%7+i%3))
		if _, err := Refresh(t.Context(), home, "amd64", slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
	}
}

// publisher starts such a process and waits until it begins.
func publisher(t *testing.T, ctx context.Context, home paths.Home, rounds int) *exec.Cmd { //nolint:revive // tests take t first
	t.Helper()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestPublisherProcess$")
	cmd.Env = append(os.Environ(), publisherHome+"="+home.Dir(), "CAPSEM_TEST_PUBLISHER_ROUNDS="+strconv.Itoa(rounds))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "begin\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	return cmd
}

func TestAPublisherKilledAtAnyTimeLeavesAWholeSet(t *testing.T) {
	t.Parallel()
	home := newHome(t)
	install(t, home, "amd64", "first")
	for delay := range 12 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+delay*13)*time.Millisecond)
		cmd := publisher(t, t.Context(), home, 1000)
		<-ctx.Done()
		cancel()
		_ = cmd.Process.Kill()
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("the publisher ended by itself: %v", err)
		}
		set, err := Current(home, "amd64")
		if err != nil {
			t.Fatal(err)
		}
		if err := set.Verify(t.Context()); err != nil {
			t.Errorf("killed after round %d: %v", delay, err)
		}
	}
	install(t, home, "amd64", "last")
	left(t, home)
	listed := versions(t, home)
	if dirs, err := filepath.Glob(home.AssetVersion("*")); err != nil || len(dirs) != len(listed) || len(listed) != 2 {
		t.Errorf("directories %v, listed %v, %v", dirs, listed, err)
	}
}

func TestPublishersAtTheSameTimeLoseNothing(t *testing.T) {
	t.Parallel()
	home := newHome(t)
	install(t, home, "amd64", "first")
	pinned := install(t, home, "amd64", "pinned")
	pin(t, home.Persistent("dev"), pinned.Version)
	var all []*exec.Cmd
	for range 3 {
		all = append(all, publisher(t, t.Context(), home, 3))
	}
	for range 20 { // readers meanwhile
		set, err := Current(home, "amd64")
		if err != nil {
			t.Error(err)
			continue
		}
		if o, err := set.Open(t.Context()); err == nil {
			_ = o.Close()
		}
	}
	for _, cmd := range all {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	if got := versions(t, home); len(got) != 3 {
		t.Errorf("sets are %v", got)
	}
	if _, err := Load(home, "amd64", pinned.Version); err != nil {
		t.Error(err)
	}
	left(t, home)
}
