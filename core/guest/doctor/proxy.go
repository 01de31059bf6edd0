//go:build linux

package doctor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"capsem/core/guest/castore"
)

const (
	// nowhere is an address for documentation (RFC 5737): nobody has it, but in a guest every connection is taken by the proxy.
	nowhere = "192.0.2.1"
	// refusedName does not exist (RFC 6761), and no policy has a reason to allow it.
	refusedName = "capsem-doctor.invalid"
	// proxyTime is how long the proxy has to answer.
	proxyTime = 5 * time.Second
)

// proxyAnswers sends a request for an address that nobody has: the answer can only be the proxy's.
func proxyAnswers(ctx context.Context, _ *System) (string, error) {
	d := net.Dialer{Timeout: proxyTime}
	conn, err := d.DialContext(ctx, "tcp", nowhere+":80")
	if err != nil {
		return "", fmt.Errorf("connect to the proxy: %w", err)
	}
	defer conn.Close()
	err = conn.SetDeadline(time.Now().Add(proxyTime))
	if err == nil {
		_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: "+nowhere+"\r\nConnection: close\r\n\r\n")
	}
	if err != nil {
		return "", fmt.Errorf("ask the proxy: %w", err)
	}
	line, err := bufio.NewReader(io.LimitReader(conn, 200)).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("the proxy does not answer (does a rule ask the owner about every host?): %w", err)
	}
	status, err := statusOf(line)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("a request that nobody may make is answered with %d", status), nil
}

// statusOf reads the first line of an answer, which must be one that refuses or fails.
func statusOf(line string) (int, error) {
	version, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	switch {
	case !strings.HasPrefix(version, "HTTP/1.") || err != nil:
		return 0, fmt.Errorf("what answers is no HTTP: %.60q", line)
	case status < 400 || status > 599:
		return 0, fmt.Errorf("an address that nobody has answers with %d", status)
	}
	return status, nil
}

// handshakes are programs that tell whether a TLS server is trusted, each with the exit status that means no.
var handshakes = []struct {
	args []string
	no   int
}{
	{[]string{"curl", "-sS", "-o", "/dev/null", "--max-time", "5", "--resolve", refusedName + ":443:" + nowhere, "https://" + refusedName + "/"}, 60},
	{[]string{
		"openssl", "s_client", "-brief", "-verify_return_error", "-verify_hostname", refusedName, "-servername", refusedName, "-connect", nowhere + ":443",
	}, 1},
}

// proxyTrusted looks for the CA's certificate in the system's store, and has a program of the guest, if there is one, shake hands with the
// proxy under a name.
func proxyTrusted(ctx context.Context, _ *System) (string, error) {
	if err := castore.Check(""); err != nil {
		return "", err //nolint:wrapcheck // says what is wrong
	}
	ctx, cancel := context.WithTimeout(ctx, 2*proxyTime)
	defer cancel()
	for _, h := range handshakes {
		program, err := exec.LookPath(h.args[0])
		if err != nil {
			continue
		}
		out, err := exec.CommandContext(ctx, program, h.args[1:]...).CombinedOutput()
		if ended, ok := errors.AsType[*exec.ExitError](err); ok && ended.ExitCode() == h.no {
			return "", fmt.Errorf("%s does not trust the proxy: %.150q", h.args[0], out)
		}
		if err != nil {
			return "", fmt.Errorf("%s gets no TLS from the proxy: %w: %.150q", h.args[0], err, out)
		}
		return "the proxy's certificate is in the system's store, and " + h.args[0] + " trusts it", nil
	}
	return "the proxy's certificate is in the system's store", nil
}
