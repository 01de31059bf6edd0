package assets

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"capsem/core/atomicfile"
	"capsem/core/fault"
	"capsem/core/paths"
)

// label is a copy of a set's entry beside its files: with it a manifest that was lost or damaged is made anew, so that VMs
// which were stopped can still start from their set.
const label = "set.json"

func writeLabel(dir string, e Entry) error {
	text, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return fmt.Errorf("write label of image: %w", err)
	}
	return atomicfile.Write(filepath.Join(dir, label), append(text, '\n'), 0o644) //nolint:wrapcheck // says what it did
}

// manifestToChange reads the manifest. One that is not there is made of the sets' labels, with nothing current; so is one that
// is damaged, which is moved aside. One that cannot be read stays. The caller holds the Lock.
func manifestToChange(home paths.Home) (*Manifest, error) {
	m, err := readManifest(home)
	switch {
	case err == nil:
	case errors.Is(err, errDamaged):
		aside := fmt.Sprintf("%s.damaged-%d", home.Manifest(), time.Now().UnixNano())
		if err := os.Rename(home.Manifest(), aside); err != nil {
			return nil, fmt.Errorf("move damaged manifest aside: %w", err)
		}
		m = &Manifest{Sets: labelled(home)}
	case fault.Is(err, fault.NotFound):
		m = &Manifest{Sets: labelled(home)}
	default:
		return nil, err
	}
	m.Format = formatVersion
	if m.Sets == nil {
		m.Sets = map[string]Entry{}
	}
	if m.Current == nil {
		m.Current = map[string]string{}
	}
	return m, nil
}

// labelled finds the sets by their labels. Whether their files are as labelled is seen before each boot, as ever.
func labelled(home paths.Home) map[string]Entry {
	out := map[string]Entry{}
	entries, err := os.ReadDir(home.Assets())
	if err != nil {
		return out // then there is nothing to be saved
	}
	for _, entry := range entries {
		version := strings.TrimPrefix(entry.Name(), "v")
		e, err := readLabel(home.AssetVersion(version))
		if err == nil && e.check() == nil && e.version() == version && len(out) < maxSets {
			out[version] = e
		}
	}
	return out
}

func readLabel(dir string) (e Entry, err error) {
	f, err := openRegular(filepath.Join(dir, label))
	if err != nil {
		return e, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err == nil {
		err = json.Unmarshal(text, &e)
	}
	return e, err //nolint:wrapcheck // only looked at
}
