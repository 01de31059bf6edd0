package procinfo

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/proto"
)

func finder(t testing.TB) *Finder {
	t.Helper()
	f := New("/proc")
	f.patience = time.Minute // the machine may be busy
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func addrs(t testing.TB, c net.Conn) (local, remote netip.AddrPort) {
	t.Helper()
	local, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	remote, err = netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	return local, remote
}

func listen(t testing.TB, network, address string) net.Listener {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func dial(t testing.TB, network, address string) net.Conn {
	t.Helper()
	var d net.Dialer
	c, err := d.DialContext(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func isThisTest(t *testing.T, what string, c proto.ProcessClaim) {
	t.Helper()
	exe, _ := os.Executable()
	if c.PID != int32(os.Getpid()) || c.UID != uint32(os.Getuid()) || c.Exe != exe || c.Name == "" || !strings.HasPrefix(exe, strings.Fields(c.CommandLine)[0]) {
		t.Errorf("%s: %+v", what, c)
	}
	if len(c.Parents) == 0 {
		t.Errorf("%s: no parents", what)
	}
	if err := c.Validate(); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

func TestTheProcessOfAConnectionIsFound(t *testing.T) {
	t.Parallel()
	f := finder(t)
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l := listen(t, "tcp", address)
		c := dial(t, "tcp", l.Addr().String())
		isThisTest(t, address, f.TCP(addrs(t, c)))
	}
}

// Java and others speak IPv4 with IPv6 sockets.
func TestTheProcessOfAMappedConnectionIsFound(t *testing.T) {
	t.Parallel()
	l := listen(t, "tcp", "127.0.0.1:0")
	_, port, _ := net.SplitHostPort(l.Addr().String())
	n, _ := strconv.Atoi(port)
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	mapped := netip.MustParseAddr("::ffff:127.0.0.1").As16()
	if err := unix.Connect(fd, &unix.SockaddrInet6{Addr: mapped, Port: n}); err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	remote, local := addrs(t, server)
	isThisTest(t, "mapped", finder(t).TCP(local, remote))
}

func TestTheProcessOfADatagramIsFound(t *testing.T) {
	t.Parallel()
	f := finder(t)
	for _, c := range []struct{ name, network, local, remote string }{
		{"connected", "udp4", "127.0.0.1:0", "127.0.0.1:53"},
		{"connected elsewhere", "udp4", "127.0.0.1:0", "127.0.0.2:5353"},
		{"connected by IPv6", "udp6", "[::1]:0", "[::1]:53"},
		{"connected elsewhere by IPv6", "udp6", "[::1]:0", "[::1]:99"},
		{"not connected", "udp4", "127.0.0.1:0", ""},
		{"not bound to an address", "udp4", "0.0.0.0:0", ""},
		{"not bound to a family", "udp", "[::]:0", ""},
	} {
		laddr := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(c.local))
		var conn *net.UDPConn
		var err error
		if c.remote != "" {
			conn, err = net.DialUDP(c.network, laddr, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(c.remote)))
		} else {
			conn, err = net.ListenUDP(c.network, laddr)
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		t.Cleanup(func() { _ = conn.Close() })
		from := conn.LocalAddr().(*net.UDPAddr).AddrPort()
		if from.Addr().IsUnspecified() {
			from = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), from.Port())
		}
		isThisTest(t, c.name, f.UDP(from))
	}
}

func TestAnUnknownProcessIsAZeroClaim(t *testing.T) {
	t.Parallel()
	f := finder(t)
	a, b := netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:2")
	for name, c := range map[string]proto.ProcessClaim{
		"TCP": f.TCP(a, b), "UDP": f.UDP(a), "nothing": f.TCP(netip.AddrPort{}, netip.AddrPort{}), "no address": f.UDP(netip.AddrPort{}),
	} {
		if c.PID != 0 || c.Name != "" || c.CommandLine != "" || c.Exe != "" || c.Parents != nil {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

// children starts processes that have ten files open each, like those of a guest at work.
func children(t testing.TB, n int) {
	t.Helper()
	script := "exec 3</dev/null 4<&3 5<&3 6<&3 7<&3 8<&3 9<&3; for i in $(seq " + strconv.Itoa(n) + "); do sleep 600 & done; echo; read -r x; kill $(jobs -p); wait"
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "bash", "-c", script)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func TestAConnectionOfAChildNamesItsParents(t *testing.T) {
	t.Parallel()
	l := listen(t, "tcp", "127.0.0.1:0")
	host, port, _ := net.SplitHostPort(l.Addr().String())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	script := "exec 9<>/dev/tcp/" + host + "/" + port + "; read -r x <&9; exit 0"
	cmd := exec.CommandContext(ctx, "bash", "-c", script, "an argument", "\xff\xfe")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	remote, local := addrs(t, server)
	c := finder(t).TCP(local, remote)
	if c.PID != int32(cmd.Process.Pid) || c.Name != "bash" || !strings.HasSuffix(c.CommandLine, " an argument \ufffd") || !strings.HasSuffix(c.Exe, "/bash") {
		t.Errorf("%+v", c)
	}
	ours := statusOf("/proc", os.Getpid()).name
	if len(c.Parents) == 0 || c.Parents[0] != ours {
		t.Errorf("its parents are %q", c.Parents)
	}
	_ = server.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// fake makes a /proc with one process, and its parents, that say anything.
func fake(t testing.TB, files map[string]string, links map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, data := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range links {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		_ = os.Symlink(target, path) // not every target can be one
	}
	return root
}

func soon() time.Time { return time.Now().Add(time.Minute) }

func TestHostileProcessesAreDescribedWithinBounds(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 5000)
	for name, c := range map[string]struct {
		stat, cmdline string
		want          proto.ProcessClaim
	}{
		"plain":              {"7 (sh) S 0 7 7", "sh\x00-c\x00x y\x00", proto.ProcessClaim{PID: 7, Name: "sh", CommandLine: "sh -c x y"}},
		"no command line":    {"7 (kworker/0:1) S 0", "", proto.ProcessClaim{PID: 7, Name: "kworker/0:1"}},
		"own parent":         {"7 (a) S 7", "", proto.ProcessClaim{PID: 7, Name: "a", Parents: slices.Repeat([]string{"a"}, 16)}},
		"brackets":           {"7 (a) S 9 (b) R 0 1", "", proto.ProcessClaim{PID: 7, Name: "a) S 9 (b"}},
		"long":               {"7 (" + long[:800] + ") S 0", long, proto.ProcessClaim{PID: 7, Name: long[:64], CommandLine: long[:4096]}},
		"not text":           {"7 (\xff\xfe) S 0", "\xc3\x28\x00\x80", proto.ProcessClaim{PID: 7, Name: "\ufffd", CommandLine: "\ufffd( \ufffd"}},
		"no end of the name": {"7 (sh S 0", "", proto.ProcessClaim{PID: 7}},
		"nothing":            {"", "", proto.ProcessClaim{PID: 7}},
		"a huge parent":      {"7 (a) S 99999999999999999999", "", proto.ProcessClaim{PID: 7, Name: "a"}},
		"a negative parent":  {"7 (a) S -1", "", proto.ProcessClaim{PID: 7, Name: "a"}},
	} {
		root := fake(t, map[string]string{"7/stat": c.stat, "7/cmdline": c.cmdline}, nil)
		got := describe(root, 7, statusOf(root, 7), soon())
		if err := got.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got.PID != c.want.PID || got.Name != c.want.Name || got.CommandLine != c.want.CommandLine || !slices.Equal(got.Parents, c.want.Parents) {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestAnAnswerThatTakesTooLongIsGivenUp(t *testing.T) {
	t.Parallel()
	root := fake(t, map[string]string{"7/stat": "7 (a) S 7"}, map[string]string{"7/fd/3": "socket:[12]"})
	f := New(root)
	if pid := f.owner(12, soon()); pid != 7 {
		t.Errorf("found %d", pid)
	}
	f.recent = nil
	if pid := f.owner(12, time.Now().Add(-time.Second)); pid != 0 {
		t.Errorf("found %d after the end", pid)
	}
	if c := describe(root, 7, statusOf(root, 7), time.Now().Add(-time.Second)); c.Name != "a" || c.Parents != nil {
		t.Errorf("after the end: %+v", c)
	}
}

func TestTheLastProcessesAreLookedAtFirstAndBounded(t *testing.T) {
	t.Parallel()
	links := map[string]string{}
	for pid := 1; pid <= 40; pid++ {
		links[strconv.Itoa(pid)+"/fd/0"] = "socket:[" + strconv.Itoa(1000+pid) + "]"
	}
	f := New(fake(t, nil, links))
	for pid := 1; pid <= 40; pid++ {
		if got := f.owner(uint32(1000+pid), soon()); got != pid {
			t.Errorf("found %d instead of %d", got, pid)
		}
	}
	if len(f.recent) != maxRecent || f.recent[0] != 40 || f.recent[1] != 39 {
		t.Errorf("recent are %v", f.recent)
	}
	_ = f.owner(1039, soon())
	if f.recent[0] != 39 || f.recent[1] != 40 || len(f.recent) != maxRecent {
		t.Errorf("recent are %v", f.recent)
	}
}

func TestADescriptionIsUsedAgainOnlyForTheSameLife(t *testing.T) {
	t.Parallel()
	stat := func(name, parent, started, stack string) string {
		return "7 (" + name + ") S " + parent + strings.Repeat(" 0", 17) + " " + started + strings.Repeat(" 0", 5) + " " + stack + " 0"
	}
	root := fake(t, map[string]string{"7/stat": stat("a", "0", "100", "4096"), "7/cmdline": "first"}, nil)
	f := New(root)
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(root, "7", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if c := f.describe(7, soon()); c.CommandLine != "first" || c.Name != "a" {
		t.Errorf("%+v", c)
	}
	write("cmdline", "second")
	if c := f.describe(7, soon()); c.CommandLine != "first" {
		t.Errorf("it is described anew: %+v", c)
	}
	for name, text := range map[string]string{
		"another name": stat("b", "0", "100", "4096"), "another parent": stat("a", "3", "100", "4096"),
		"another process": stat("a", "0", "101", "4096"), "another program": stat("a", "0", "100", "8192"), "unknown": "7 (a) S 0",
	} {
		write("stat", stat("a", "0", "100", "4096"))
		write("cmdline", "before")
		f.known = map[int]known{}
		_ = f.describe(7, soon())
		write("stat", text)
		write("cmdline", "now")
		if c := f.describe(7, soon()); c.CommandLine != "now" {
			t.Errorf("%s: %+v", name, c)
		}
	}
	k := f.known[7]
	k.at = k.at.Add(-maxAge)
	f.known[7] = k
	write("cmdline", "later")
	if c := f.describe(7, soon()); c.CommandLine != "later" {
		t.Errorf("after its time: %+v", c)
	}
	for pid := 100; pid < 200; pid++ {
		_ = f.describe(pid, soon())
	}
	if len(f.known) > maxRecent {
		t.Errorf("%d are known", len(f.known))
	}
}

func FuzzDescribe(f *testing.F) {
	f.Add([]byte("7 (sh) S 8 7 7"), []byte("sh\x00-c\x00"), []byte("8 (in it) S 0"), "/bin/sh")
	f.Add([]byte("7 (\xff) S 7"), []byte("\xff\x00\xfe"), []byte(")("), "\xff")
	f.Fuzz(func(t *testing.T, stat, cmdline, parent []byte, exe string) {
		root := fake(t, map[string]string{"7/stat": string(stat), "7/cmdline": string(cmdline), "8/stat": string(parent)}, map[string]string{"7/exe": exe})
		c := describe(root, 7, statusOf(root, 7), soon())
		if err := c.Validate(); err != nil {
			t.Errorf("%v: %+v", err, c)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	one := make([]byte, unix.SizeofNlMsghdr+answerSize)
	one[0], one[4], one[8], one[16] = byte(len(one)), sockDiagByFamily, 7, unix.AF_INET
	f.Add(one, uint32(7), true)
	f.Add([]byte{}, uint32(0), false)
	f.Fuzz(func(_ *testing.T, buf []byte, seq uint32, many bool) {
		each := func(s socket) bool { return s.inode != 0 }
		answer(buf, seq, many, &each)
	})
}

func BenchmarkBusyClientAmong200Processes(b *testing.B) {
	children(b, 200)
	l := listen(b, "tcp", "127.0.0.1:0")
	local, remote := addrs(b, dial(b, "tcp", l.Addr().String()))
	f := finder(b)
	for b.Loop() {
		if c := f.TCP(local, remote); c.PID == 0 {
			b.Fatal("not found")
		}
	}
}

// This process is older than all the others, so that they are all looked at.
func BenchmarkNewClientAmong200Processes(b *testing.B) {
	children(b, 200)
	l := listen(b, "tcp", "127.0.0.1:0")
	local, remote := addrs(b, dial(b, "tcp", l.Addr().String()))
	f := finder(b)
	for b.Loop() {
		f.recent = nil
		if c := f.TCP(local, remote); c.PID == 0 {
			b.Fatal("not found")
		}
	}
}

func BenchmarkDatagramElsewhere(b *testing.B) {
	conn := dial(b, "udp4", "127.0.0.1:5353")
	local, _ := addrs(b, conn)
	f := finder(b)
	for b.Loop() {
		if c := f.UDP(local); c.PID == 0 {
			b.Fatal("not found")
		}
	}
}
