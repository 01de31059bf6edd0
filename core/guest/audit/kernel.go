//go:build linux

package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Of linux/audit.h, what golang.org/x/sys/unix has under other names or not at all.
const (
	statusEnabled, statusFailure, statusPID, statusBacklogLimit, statusWait = 0x1, 0x2, 0x4, 0x10, 0x20
	// enabledLocked forbids every further change until the next boot.
	enabledOn, enabledLocked  = 1, 2
	filterExit, filterExclude = 0x4, 0x5
	actionNever, actionAlways = 0, 2
	fieldArch, fieldKind      = 11, 12
	opEqual                   = 0x40000000
	// kindPath and kindTitle are messages that we have no use for.
	kindPath, kindTitle = 1302, 1327
	maxFields           = 64
	maskWords           = 64
	ruleBytes           = 4*3 + 4*maskWords + 3*4*maxFields + 4
	statusBytes         = 4 * 8

	// backlog is how many messages the kernel keeps for us; more are lost, and counted. Nobody ever waits for us.
	backlog = 8192
	// receiveBuffer is the size of the socket's buffer.
	receiveBuffer = 4 << 20
	// answerTime bounds the kernel's answer to a request.
	answerTime = 5 * time.Second
)

// kernel is the socket on which the kernel reports.
type kernel struct {
	file *os.File
	seq  uint32
}

// open has the kernel report to us, and sets and locks the rules unless an agent before has done so.
func open() (*kernel, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_AUDIT)
	if err != nil {
		return nil, fmt.Errorf("open audit: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) // only for bursts
	k := &kernel{file: os.NewFile(uintptr(fd), "audit")}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, errors.Join(fmt.Errorf("open audit: %w", err), k.file.Close())
	}
	if err := k.begin(); err != nil {
		return nil, errors.Join(fmt.Errorf("open audit: %w", err), k.file.Close())
	}
	return k, nil
}

func (k *kernel) begin() error {
	pid := uint32(os.Getpid()) //nolint:gosec // a process id
	enabled, err := k.enabled()
	if err != nil {
		return err
	}
	if enabled == enabledLocked {
		return k.set(status{mask: statusPID, pid: pid})
	}
	first := status{mask: statusPID | statusEnabled | statusFailure | statusBacklogLimit | statusWait, enabled: enabledOn, pid: pid, backlog: backlog}
	if err := k.set(first); err != nil {
		return err
	}
	rules := [][]byte{
		rule(filterExclude, actionNever, field{fieldKind, kindPath}, nil), rule(filterExclude, actionNever, field{fieldKind, kindTitle}, nil),
	}
	for _, a := range starts[runtime.GOARCH] {
		rules = append(rules, rule(filterExit, actionAlways, field{fieldArch, a.arch}, a.calls))
	}
	for _, r := range rules {
		if err := k.ask("add rule", unix.AUDIT_ADD_RULE, r); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return k.set(status{mask: statusEnabled, enabled: enabledLocked})
}

// starts are the system calls that start programs, by their numbers in each table that the kernel of an architecture has.
var starts = map[string][]struct {
	arch  uint32
	calls []uint
}{
	"amd64": {{unix.AUDIT_ARCH_X86_64, []uint{59, 322}}, {unix.AUDIT_ARCH_I386, []uint{11, 358}}},
	"arm64": {{unix.AUDIT_ARCH_AARCH64, []uint{221, 281}}, {unix.AUDIT_ARCH_ARM, []uint{11, 387}}},
}

// status is struct audit_status, as far as we set it.
type status struct{ mask, enabled, pid, backlog uint32 }

func (k *kernel) set(s status) error {
	body := make([]byte, statusBytes+8)
	for i, v := range []uint32{s.mask, s.enabled, 0, s.pid, 0, s.backlog} {
		binary.NativeEndian.PutUint32(body[4*i:], v)
	}
	return k.ask("configure", unix.AUDIT_SET, body)
}

type field struct{ name, value uint32 }

// rule is struct audit_rule_data with one field.
func rule(filter, action uint32, f field, calls []uint) []byte {
	b := make([]byte, ruleBytes)
	put := func(at int, v uint32) { binary.NativeEndian.PutUint32(b[at:], v) }
	put(0, filter)
	put(4, action)
	put(8, 1)
	for _, c := range calls {
		at := 12 + 4*int(c/32)
		put(at, binary.NativeEndian.Uint32(b[at:])|1<<(c%32))
	}
	const fieldsAt = 12 + 4*maskWords
	put(fieldsAt, f.name)
	put(fieldsAt+4*maxFields, f.value)
	put(fieldsAt+8*maxFields, opEqual)
	return b
}

// enabled asks whether reporting is on, or locked.
func (k *kernel) enabled() (uint32, error) {
	body, err := k.get()
	if err != nil {
		return 0, err
	}
	return binary.NativeEndian.Uint32(body[4:]), nil
}

// lostOf is how many messages the kernel could not keep, of struct audit_status.
func lostOf(body []byte) uint32 { return binary.NativeEndian.Uint32(body[24:]) }

// get asks for struct audit_status.
func (k *kernel) get() ([]byte, error) {
	if err := k.send(unix.AUDIT_GET, unix.NLM_F_REQUEST, nil); err != nil {
		return nil, err
	}
	_ = k.file.SetReadDeadline(time.Now().Add(answerTime)) // a socket in the poller
	defer k.file.SetReadDeadline(time.Time{})              //nolint:errcheck // as above
	buf := make([]byte, maxMessage)
	for {
		kind, body, err := k.next(buf)
		switch {
		case err != nil:
			return nil, err
		case kind == unix.NLMSG_ERROR:
			if err := failure(body); err != nil {
				return nil, err
			}
		case kind == unix.AUDIT_GET && len(body) >= statusBytes:
			return body, nil
		}
	}
}

// ask sends a request and waits for the kernel's verdict. Reports that come meanwhile are lost: it is only for the beginning.
func (k *kernel) ask(what string, kind uint16, body []byte) error {
	if err := k.send(kind, unix.NLM_F_REQUEST|unix.NLM_F_ACK, body); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	_ = k.file.SetReadDeadline(time.Now().Add(answerTime)) // a socket in the poller
	defer k.file.SetReadDeadline(time.Time{})              //nolint:errcheck // as above
	buf := make([]byte, maxMessage)
	for {
		got, body, err := k.next(buf)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if got == unix.NLMSG_ERROR {
			if err := failure(body); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			return nil
		}
	}
}

func failure(body []byte) error {
	if len(body) < 4 {
		return unix.EBADMSG
	}
	if n := int32(binary.NativeEndian.Uint32(body)); n < 0 { //nolint:gosec // it is one
		return unix.Errno(-n)
	}
	return nil
}

func (k *kernel) send(kind uint16, flags uint16, body []byte) error {
	k.seq++
	out := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	binary.NativeEndian.PutUint32(out[0:], uint32(unix.SizeofNlMsghdr+len(body))) //nolint:gosec // short
	binary.NativeEndian.PutUint16(out[4:], kind)
	binary.NativeEndian.PutUint16(out[6:], flags)
	binary.NativeEndian.PutUint32(out[8:], k.seq)
	raw, err := k.file.SyscallConn()
	if err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		sent = unix.Sendto(int(fd), append(out, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		return !errors.Is(sent, unix.EAGAIN)
	})
	return errors.Join(err, sent)
}

// maxMessage is the longest message that the kernel sends (MAX_AUDIT_MESSAGE_LENGTH is 8970).
const maxMessage = 16 << 10

// next returns the next message: one comes at a time. The bytes are good until the next call.
func (k *kernel) next(buf []byte) (kind uint16, body []byte, err error) {
	n, err := k.file.Read(buf)
	if err != nil {
		return 0, nil, err //nolint:wrapcheck // by the caller
	}
	if n < unix.SizeofNlMsghdr {
		return 0, nil, unix.EBADMSG
	}
	return binary.NativeEndian.Uint16(buf[4:]), buf[unix.SizeofNlMsghdr:n], nil
}
