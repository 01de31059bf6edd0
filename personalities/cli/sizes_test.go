package cli

import (
	"strings"
	"testing"

	"capsem/core/fault"
)

func TestSizesAreReadAsWritten(t *testing.T) {
	for text, want := range map[string]int{
		"": 0, "512M": 512, "2G": 2048, "1.5G": 1536, "4": 4096, "16": 16384, "0.5": 512, "2GB": 2048, "2gib": 2048, "300m": 300, "1T": 1 << 20, "0.5tib": 1 << 19,
		"17": -1, "2048": -1, "0": -1, "-1": -1, "G": -1, "lots": -1, "1e3": -1, "NaN": -1, "9999999999999G": -1, "2\x20": -1, "..": -1,
	} {
		got, err := parseSize("ram", text, 16)
		switch {
		case want >= 0 && (err != nil || got != want):
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		case want < 0 && (err == nil || !fault.Is(err, fault.Invalid)):
			t.Errorf("%q: %d, %v, want it refused", text, got, err)
		}
	}
	if _, err := parseSize("ram", "2048", 16); !strings.Contains(fault.Line(err), "2048M") {
		t.Errorf("the error does not show how to write it: %s", fault.Line(err))
	}
}

func TestTimeoutsAreSecondsOrDurations(t *testing.T) {
	for text, want := range map[string]float64{"": 0, "30": 30, "0.5": 0.5, "5m": 300, "1h30m": 5400, "90s": 90, "0": -1, "-3": -1, "soon": -1, "NaN": -1, "1e99": -1} {
		got, err := parseTimeout(text)
		if want >= 0 && (err != nil || got != want) || want < 0 && err == nil {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
}

func TestNumbersAreShownForPeople(t *testing.T) {
	for seconds, want := range map[int64]string{0: "-", 42: "42s", 300: "5m", 3900: "1h 05m", 2*86400 + 3*3600: "2d 3h"} {
		if got := uptime(seconds); got != want {
			t.Errorf("uptime %d: %q, want %q", seconds, got, want)
		}
	}
	for mb, want := range map[int]string{512: "512 MB", 4096: "4 GB", 1536: "1.5 GB"} {
		if got := gigabytes(mb); got != want {
			t.Errorf("%d MB: %q, want %q", mb, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KB", 24 << 20: "24 MB", 3 << 30: "3 GB", 5 << 50: "5120.0 TB"} {
		if got := byteSize(n); got != want {
			t.Errorf("%d bytes: %q, want %q", n, got, want)
		}
	}
}
