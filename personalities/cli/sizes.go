package cli

import (
	"math"
	"strconv"
	"strings"
	"time"

	"capsem/core/fault"
)

// Sizes count in 1024s everywhere, in what is read and in what is shown: 1 GB is 1024 MB.

// parseSize reads an amount such as 512M, 1.5G or 1T and returns MB. A bare number up to bareMaxGB is GB; a larger one is
// refused, since nobody can tell what it was meant to be. Empty is 0, the default.
func parseSize(flag, text string, bareMaxGB float64) (int, error) {
	if text == "" {
		return 0, nil
	}
	bad := fault.New(fault.Invalid, "--%s %.40s is not an amount", flag, text).WithHint("write it like 512M, 2G, 1.5G or 1T")
	number, unit := cutUnit(text)
	value, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsInf(value, 0) || math.IsNaN(value) || value <= 0 {
		return 0, bad
	}
	switch unit {
	case "":
		if value > bareMaxGB {
			return 0, fault.New(fault.Invalid, "--%s %s has no unit", flag, text).
				WithHint("write %sM for megabytes or %sG for gigabytes", number, number)
		}
		value *= 1024
	case "G":
		value *= 1024
	case "T":
		value *= 1024 * 1024
	case "M":
	default:
		return 0, bad
	}
	if value > math.MaxInt32 || value < 1 {
		return 0, bad
	}
	return int(math.Round(value)), nil
}

// cutUnit splits 1.5GB, 2GiB, 512m or 4 into the number and M, G, T, nothing, or what else was written.
func cutUnit(text string) (number, unit string) {
	i := strings.IndexFunc(text, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if i < 0 {
		return text, ""
	}
	unit = strings.ToUpper(strings.TrimSpace(text[i:]))
	switch unit {
	case "MB", "MIB":
		unit = "M"
	case "GB", "GIB":
		unit = "G"
	case "TB", "TIB":
		unit = "T"
	case "":
		unit = "?" // only spaces
	}
	return text[:i], unit
}

// parseTimeout reads a time limit: a number of seconds, or 90s, 5m, 1h30m. Empty is no limit. The result is in seconds.
func parseTimeout(text string) (float64, error) {
	if text == "" {
		return 0, nil
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil {
		d, err := time.ParseDuration(text)
		if err != nil {
			d = -1
		}
		seconds = d.Seconds()
	}
	if !(seconds >= 0.001 && seconds <= 1e8) {
		return 0, fault.New(fault.Invalid, "--timeout %.40s is not a time", text).WithHint("write seconds, or 90s, 5m, 2h")
	}
	return seconds, nil
}

// uptime shows a number of seconds as 2d 3h, 1h 05m, 5m, 42s or -.
func uptime(seconds int64) string {
	d, h, m := seconds/86400, seconds/3600%24, seconds/60%60
	switch {
	case seconds <= 0:
		return "-"
	case d > 0:
		return strconv.FormatInt(d, 10) + "d " + strconv.FormatInt(h, 10) + "h"
	case h > 0:
		return strconv.FormatInt(h, 10) + "h " + pad2(m) + "m"
	case m > 0:
		return strconv.FormatInt(m, 10) + "m"
	}
	return strconv.FormatInt(seconds, 10) + "s"
}

func pad2(n int64) string {
	if n < 10 {
		return "0" + strconv.FormatInt(n, 10)
	}
	return strconv.FormatInt(n, 10)
}

// gigabytes shows MB as GB where that is exact enough: 4 GB, 1.5 GB, 512 MB.
func gigabytes(mb int) string {
	if mb < 1024 {
		return strconv.Itoa(mb) + " MB"
	}
	return strings.TrimSuffix(strconv.FormatFloat(float64(mb)/1024, 'f', 1, 64), ".0") + " GB"
}

// byteSize shows a number of bytes in the largest unit that keeps it readable.
func byteSize(n int64) string {
	value := float64(n)
	for _, unit := range []string{"B", "KB", "MB", "GB"} {
		if value < 1024 {
			return strings.TrimSuffix(strconv.FormatFloat(value, 'f', 1, 64), ".0") + " " + unit
		}
		value /= 1024
	}
	return strconv.FormatFloat(value, 'f', 1, 64) + " TB"
}
