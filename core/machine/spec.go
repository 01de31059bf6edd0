package machine

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"syscall"

	"capsem/core/api"
	"capsem/core/proto"
)

const (
	// maxSpec bounds vm.json: an environment may have proto.MaxEnv long values.
	maxSpec   = 32 << 20
	oNoFollow = syscall.O_NOFOLLOW
)

var machineID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// readSpec reads what the service asks for. The service is trusted; a damaged file is not.
func readSpec(path string) (proto.VMSpec, error) {
	var spec proto.VMSpec
	f, err := os.OpenFile(path, os.O_RDONLY|oNoFollow, 0)
	if err != nil {
		return spec, fmt.Errorf("read VM spec: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSpec+1))
	if err != nil {
		return spec, fmt.Errorf("read VM spec: %w", err)
	}
	if len(text) > maxSpec {
		return spec, errors.New("read VM spec: the file is too long")
	}
	return parseSpec(text)
}

func parseSpec(text []byte) (spec proto.VMSpec, err error) {
	if err := json.Unmarshal(text, &spec); err != nil {
		return spec, fmt.Errorf("read VM spec: %w", err)
	}
	return spec, checkSpec(spec)
}

func checkSpec(s proto.VMSpec) error {
	err := errors.Join(api.CheckName(s.ID), api.CheckSizes(s.CPUs, s.MemoryMB, s.DiskMB), proto.ValidateEnv(s.Env))
	for _, m := range s.Mounts {
		err = errors.Join(err, proto.ValidateMount(m))
	}
	switch {
	case err != nil:
	case s.CPUs == 0 || s.MemoryMB == 0 || s.DiskMB == 0 || s.ReadyTimeoutMS <= 0:
		err = errors.New("a size or time is missing")
	case len(s.Mounts) >= proto.MaxShares:
		err = errors.New("too many directories are shared")
	case !machineID.MatchString(s.MachineID):
		err = errors.New("the machine id is malformed")
	}
	if err != nil {
		return fmt.Errorf("VM spec: %w", err)
	}
	return nil
}

// newNonce tells one run of a worker from another.
func newNonce() string { return rand.Text() }
