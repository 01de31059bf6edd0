package live

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"capsem/core/ledger"
)

// rfc5424 is a message of syslog, after the grammar of RFC 5424 section 6.
var rfc5424 = regexp.MustCompile(`^<([0-9]{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)) ([\x21-\x7e]{1,255}) ([\x21-\x7e]{1,48}) ([\x21-\x7e]{1,128}) ([\x21-\x7e]{1,32}) (-|(?:\[[^ =\]"]{1,32}(?: [^ =\]"]{1,32}="(?:[^"\\\]]|\\["\\\]])*")*\])+)(?: (.*))?$`)

// said is a message that was taken apart.
type said struct{ severity, facility, host, app, process, id, data, text string }

func parsed(t *testing.T, line string) said {
	t.Helper()
	m := rfc5424.FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("no message of RFC 5424: %q", line)
	}
	pri, err := strconv.Atoi(m[1])
	if err != nil || pri > 191 {
		t.Fatalf("%q: %v", m[1], err)
	}
	if _, err := time.Parse(time.RFC3339Nano, m[2]); err != nil {
		t.Error(err)
	}
	return said{strconv.Itoa(pri % 8), strconv.Itoa(pri / 8), m[3], m[4], m[5], m[6], m[7], m[8]}
}

// streams takes connections until the test ends, and reads frames from each.
func streams(t *testing.T, l net.Listener, into *got, frame func(*bufio.Reader) (string, error)) {
	t.Helper()
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			stop := make(chan struct{})
			t.Cleanup(func() { close(stop) })
			all.Go(func() { <-stop; _ = c.Close() })
			all.Go(func() {
				for in := bufio.NewReader(c); ; {
					text, err := frame(in)
					if err != nil {
						return
					}
					into.add(text)
				}
			})
		}
	})
	t.Cleanup(all.Wait)
	t.Cleanup(func() { _ = l.Close() })
}

// counted reads a frame of RFC 6587 with a count of octets.
func counted(in *bufio.Reader) (string, error) {
	head, err := in.ReadString(' ')
	if err != nil {
		return "", err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(head, " "))
	if err != nil || n <= 0 || n > 1<<20 {
		return "", errors.Join(errors.New("a wrong count: "+head), err)
	}
	text := make([]byte, n)
	_, err = io.ReadFull(in, text)
	return string(text), err
}

func lineByLine(in *bufio.Reader) (string, error) {
	text, err := in.ReadString('\n')
	return strings.TrimSuffix(text, "\n"), err
}

// datagrams reads from a packet connection until the test ends.
func datagrams(t *testing.T, c net.PacketConn, into *got) {
	t.Helper()
	var reading sync.WaitGroup
	reading.Go(func() {
		for buf := make([]byte, 64<<10); ; {
			n, _, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			into.add(string(buf[:n]))
		}
	})
	t.Cleanup(func() { _ = c.Close(); reading.Wait() })
}

func TestEventsReachASyslogOfEachKind(t *testing.T) {
	for _, network := range []string{"udp", "tcp", "unixgram", "unix"} {
		t.Run(network, func(t *testing.T) {
			into := &got{}
			at, to := "127.0.0.1:0", ""
			if strings.HasPrefix(network, "unix") {
				at = filepath.Join(t.TempDir(), "log")
			}
			if network == "udp" || network == "unixgram" {
				c, err := net.ListenPacket(network, at)
				if err != nil {
					t.Fatal(err)
				}
				datagrams(t, c, into)
				to = c.LocalAddr().String()
			} else {
				l, err := net.Listen(network, at)
				if err != nil {
					t.Fatal(err)
				}
				streams(t, l, into, counted)
				to = l.Addr().String()
			}
			h := newHome(t, map[string]Target{Syslog: {To: strings.TrimSuffix(network, "gram") + "://" + to}})
			m, _ := h.manager()
			w := h.begin("20261129-000000-one")
			m.Follow("20261129-000000-one")
			w.Record(request(1))
			w.Record(ledger.NetEvent{Time: time.Now(), Domain: "bad.test", Port: 443, Decision: "denied", Rule: "no", Method: "GET", Path: "/2", Type: "https"})
			w.Record(ledger.Lifecycle{Time: time.Now(), Event: "stopped", Detail: "a \n line's end and " + secret})
			h.end("20261129-000000-one")
			eventually(t, "three messages", func() bool { return len(into.all()) == 3 })
			into.clean(t)
			for i, line := range into.all() {
				s := parsed(t, line)
				if s.host != "a_host" || s.app != "capsem" || s.process != "20261129-000000-one" || s.facility != "13" ||
					!strings.Contains(s.data, `swVersion="1.0\"\]\\"`) || !strings.Contains(s.data, fmt.Sprintf(`sequenceId="%d"`, i+1)) || !strings.HasPrefix(s.text, `{"session":`) {
					t.Errorf("%+v", s)
				}
				if denied := strings.Contains(s.text, "bad.test"); denied != (s.severity == "4") || s.id == "-" {
					t.Errorf("%+v", s)
				}
			}
			if want := []string{"20261129-000000-one/1", "20261129-000000-one/2"}; fmt.Sprint(into.paths(t)) != fmt.Sprint(want) {
				t.Errorf("%v", into.paths(t))
			}
			eventually(t, "a note that all was sent", func() bool { return loadState(h.state("20261129-000000-one", Syslog)).Done })
		})
	}
}

func TestASyslogThatComesBackGetsAllOfIt(t *testing.T) {
	into := &got{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	_ = l.Close() // nobody is there
	h := newHome(t, map[string]Target{Syslog: {To: "tcp://" + at}, Stream: {To: "file://" + filepath.Join(t.TempDir(), "events"), Format: "ocsf"}})
	m, stop := h.manager()
	w := h.begin("s")
	m.Follow("s")
	for i := range 300 {
		w.Record(request(i))
	}
	eventually(t, "a word in the log", func() bool { return strings.Contains(h.log.String(), "takes nothing") })
	eventually(t, "what the other target gets", func() bool {
		return loadState(h.state("s", Stream)).Sent["net"] == 300 || fileLines(t, strings.TrimPrefix(h.targets[Stream].To, "file://")) == 300
	})
	stop() // the service ends, and the next one goes on
	h.end("s")
	if !Unfinished(h.state("s", Syslog)) {
		t.Error("it is taken for sent")
	}
	m, _ = h.manager()
	m.Follow("s")
	if l, err = net.Listen("tcp", at); err != nil {
		t.Fatal(err)
	}
	streams(t, l, into, counted)
	eventually(t, "all requests", func() bool { return len(into.paths(t)) == 300 })
	eventually(t, "a note that all was sent", func() bool { return loadState(h.state("s", Syslog)).Done && loadState(h.state("s", Stream)).Done })
	file := strings.TrimPrefix(h.targets[Stream].To, "file://")
	if n := fileLines(t, file); n != 300 {
		t.Errorf("%d lines in the file", n)
	}
	text, err := os.ReadFile(file)
	if err != nil || strings.Contains(string(text), `"session":`) || strings.Count(string(text), `"correlation_uid":"s"`) != 300 {
		t.Errorf("%v: it is not all OCSF: %.500s", err, text)
	}
	if n := strings.Count(h.log.String(), "takes nothing"); n > 2 {
		t.Errorf("it is said %d times", n)
	}
}

func TestATargetThatNeverComesBackIsGivenUp(t *testing.T) {
	h := newHome(t, map[string]Target{Syslog: {To: "unix://" + filepath.Join(t.TempDir(), "nobody")}})
	m, _ := h.manager(func(c *Config) { c.GiveUp = 50 * time.Millisecond })
	w := h.begin("s")
	for i := range 5 {
		w.Record(request(i))
	}
	h.end("s")
	m.Follow("s")
	eventually(t, "a word in the log", func() bool {
		text := h.log.String()
		return strings.Contains(text, "events were not exported") && strings.Contains(text, "count=5")
	})
	// Whoever takes events later is told.
	c, err := net.ListenPacket("unixgram", strings.TrimPrefix(h.targets[Syslog].To, "unix://"))
	if err != nil {
		t.Fatal(err)
	}
	into := &got{}
	datagrams(t, c, into)
	w = h.begin("t")
	m.Follow("t")
	w.Record(request(9))
	eventually(t, "the event", func() bool { return into.has(t, "t/9") })
	first := parsed(t, into.all()[0])
	if first.id != "export" || first.severity != "4" || !strings.Contains(first.text, `"count":5`) {
		t.Errorf("%+v", first)
	}
	h.end("t")
}

func TestAStreamThatIsClosedIsOpenedAgain(t *testing.T) {
	into := &got{}
	path := filepath.Join(t.TempDir(), "lines")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	h := newHome(t, map[string]Target{Stream: {To: "unix://" + path}})
	m, _ := h.manager()
	w := h.begin("s")
	m.Follow("s")
	w.Record(request(1))
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	into.add(line)
	_ = c.Close()
	streams(t, l, into, lineByLine)
	for i := 2; i < 30; i++ {
		w.Record(request(i))
		if i == 10 {
			eventually(t, "the first ones", func() bool { return into.has(t, "s/10") })
		}
	}
	h.end("s")
	eventually(t, "all", func() bool { return len(into.paths(t)) == 29 })
	into.clean(t)
}

func TestNobodyWithoutATrustedCertificateGetsAnything(t *testing.T) {
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("none") }})
	if err != nil {
		t.Fatal(err)
	}
	into := &got{}
	streams(t, l, into, counted)
	h := newHome(t, map[string]Target{Syslog: {To: "tls://" + l.Addr().String()}})
	m, _ := h.manager()
	w := h.begin("s")
	m.Follow("s")
	w.Record(request(1))
	eventually(t, "a word in the log", func() bool { return strings.Contains(h.log.String(), "takes nothing") })
	h.end("s")
	if len(into.all()) > 0 {
		t.Error(into.all())
	}
}
