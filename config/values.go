package config

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// parseDuration is time.ParseDuration with days (d), which count 24 hours.
func parseDuration(s string) (time.Duration, error) {
	bad := errors.New(`write a number with a unit, as in 500ms, 60s, 10m, 1h30m or 14d`)
	if strings.HasPrefix(s, "-") {
		return 0, errors.New("must not be negative")
	}
	var days float64
	rest := s
	if text, after, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || !(n >= 0) || n > 100*365 || strings.ContainsAny(text, "xXpPeE_+nN") {
			return 0, bad
		}
		days, rest = n, after
	}
	d := time.Duration(days * float64(day))
	if rest == "" && rest != s {
		return d, nil
	}
	r, err := time.ParseDuration(rest)
	if err != nil || r < 0 || r > math.MaxInt64-d {
		return 0, bad
	}
	return d + r, nil
}

// formatDuration writes a duration as one would in the file: 29m, not 29m0s; 14d, not 336h0m0s.
func formatDuration(d time.Duration) string {
	if d >= day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

var sizeUnits = map[string]int64{
	"B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
	"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}

var sizePattern = pattern(`^([0-9]{1,18}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)$`)

// parseSize reads "64MiB", "1.5GB" or "1048576B".
func parseSize(s string) (int64, error) {
	m := sizePattern().FindStringSubmatch(s)
	if m == nil {
		return 0, errors.New("write a size with a unit, as in 512KiB, 64MiB or 1GiB")
	}
	unit, ok := sizeUnits[m[2]]
	if m[2] == "" {
		unit, ok = 1, true
	}
	if !ok {
		if _, ok := sizeUnits[strings.ToUpper(m[2])+"iB"]; ok {
			return 0, fmt.Errorf("%q is not a unit (did you mean %q?)", m[2], m[1]+strings.ToUpper(m[2])+"iB")
		}
		return 0, fmt.Errorf("%q is not a unit: write KiB, MiB or GiB, or KB, MB or GB", m[2])
	}
	if n, err := strconv.ParseInt(m[1], 10, 64); err == nil && n <= math.MaxInt64/unit {
		return n * unit, nil
	}
	f, err := strconv.ParseFloat(m[1], 64)
	if err != nil || f*float64(unit) >= math.MaxInt64 {
		return 0, errors.New("too large")
	}
	return int64(f * float64(unit)), nil
}

// formatSize writes a size in the largest unit that divides it.
func formatSize(n int64) string {
	for _, u := range []string{"TiB", "GiB", "MiB", "KiB"} {
		if n >= sizeUnits[u] && n%sizeUnits[u] == 0 {
			return strconv.FormatInt(n/sizeUnits[u], 10) + u
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

var hostPattern = pattern(`^[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?$`)

// checkHost says what is wrong with a host name or IP address; "" if nothing.
func checkHost(s string) string {
	if _, err := netip.ParseAddr(s); err == nil {
		return ""
	}
	switch {
	case s == "":
		return "is empty"
	case strings.Contains(s, "://"):
		return fmt.Sprintf("%s is a URL: write the host name alone", quote(s))
	case strings.Count(s, ":") == 1:
		return fmt.Sprintf("%s holds a port: write the host name alone", quote(s))
	case len(s) > 253 || !hostPattern().MatchString(s) || slices.ContainsFunc(strings.Split(s, "."), func(label string) bool { return len(label) > 63 }):
		return fmt.Sprintf("%s is not a host name or address", quote(s))
	}
	return ""
}

// checkNoProxy says what is wrong with a list of hosts that are reached without the proxy; "" if nothing.
func checkNoProxy(s string) string {
	for one := range strings.SplitSeq(s, ",") {
		one = strings.TrimSpace(one)
		host := strings.TrimPrefix(strings.TrimPrefix(one, "*"), ".")
		if name, port, ok := strings.Cut(host, ":"); ok && !strings.Contains(port, ":") { // else an IPv6 address
			host = name
			if n, err := strconv.Atoi(port); err != nil || n <= 0 || n > 65535 {
				return fmt.Sprintf("%s is no host with a port: write it as hub.example:443, without a scheme", quote(one))
			}
		}
		if _, err := netip.ParsePrefix(host); err == nil || one == "*" {
			continue
		}
		if _, err := netip.ParseAddrPort(one); err == nil {
			continue
		}
		if checkHost(host) != "" {
			return fmt.Sprintf("%s is no host name, address or network: write several as a.example,10.0.0.0/8", quote(one))
		}
	}
	return ""
}

// deviceIDPattern is the hub's rule for the ids of devices and modules.
//
// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-identity-registry#device-identity-properties
var deviceIDPattern = pattern(`^[A-Za-z0-9\-.%_*?!(),:=@$'+#]+$`)

func checkDeviceID(s string) string {
	switch {
	case s == "":
		return "is empty"
	case len(s) > 128:
		return fmt.Sprintf("has %d characters: the hub allows 128", len(s))
	case !deviceIDPattern().MatchString(s):
		return fmt.Sprintf("%s is not an id at a hub: letters, digits and - . %% _ * ? ! ( ) , : = @ $ ' are allowed", quote(s))
	}
	return ""
}

func checkNotBlank(s string) string {
	if strings.TrimSpace(s) == "" {
		return "is empty"
	}
	return ""
}

// modelID is the form of a digital twin model id.
// https://learn.microsoft.com/azure/iot/concepts-modeling-guide
var modelID = pattern(`^dtmi:[A-Za-z](?:[A-Za-z0-9_]*[A-Za-z0-9])?(?::[A-Za-z](?:[A-Za-z0-9_]*[A-Za-z0-9])?)*;[1-9][0-9]{0,8}$`)

// checkProductInfo refuses a model id that the hub would refuse with the connection.
func checkProductInfo(s string) string {
	if strings.HasPrefix(s, "dtmi:") && !modelID().MatchString(s) {
		return quote(s) + " is not a model id, which looks like dtmi:com:example:Thermostat;1"
	}
	return ""
}

func checkMethod(s string) string {
	switch {
	case s == "":
		return "a method's name is empty"
	case strings.ContainsAny(s, "/#+?") || strings.ContainsFunc(s, isControl):
		return fmt.Sprintf("%s is not a method's name: none holds / # + or ?", quote(s))
	}
	return ""
}

func checkTwinKey(s string) string {
	switch {
	case s == "":
		return "a key is empty"
	case strings.ContainsAny(s, ".$ ") || strings.ContainsFunc(s, isControl):
		return fmt.Sprintf("%s is not a top-level key of a twin: the hub allows no dot, dollar or space in one", quote(s))
	}
	return ""
}

// quote shows a text that is wrong, unless it may hold a secret in the wrong place: a connection string where the host
// name belongs, a URL with a password.
func quote(s string) string {
	if strings.ContainsAny(s, "=;@") || len(s) > 100 {
		return "the text"
	}
	return strconv.Quote(s)
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }

// distance is the number of letters to insert, delete, replace or swap with a neighbour that lead from a to b, in lower
// case (optimal string alignment).
func distance(a, b string) int {
	s, t := []rune(strings.ToLower(a)), []rune(strings.ToLower(b))
	rows := make([][]int, len(s)+1)
	for i := range rows {
		rows[i] = make([]int, len(t)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(s); i++ {
		for j := 1; j <= len(t); j++ {
			cost := 1
			if s[i-1] == t[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && s[i-1] == t[j-2] && s[i-2] == t[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(s)][len(t)]
}

// nearest returns the candidate that a typist may have meant by word; "" where none is near. The first of equals wins.
func nearest(word string, candidates []string) string {
	if len(word) > 64 {
		return ""
	}
	best, bestDistance := "", 1+len(word)/4
	for _, c := range candidates {
		d := distance(word, c)
		if strings.ReplaceAll(strings.ToLower(word), "-", "_") == c || strings.ReplaceAll(c, "_", "") == strings.ToLower(word) {
			d = 0
		} else if l := strings.ToLower(word); len(word) >= 3 && len(c) >= 3 && (strings.HasPrefix(l, c) || strings.HasPrefix(c, l)) {
			d = 1 // warning for warn, info for information
		}
		if d < bestDistance || d == bestDistance && best == "" && d < len(c) {
			best, bestDistance = c, d
		}
	}
	return best
}

func didYouMean(word string) string {
	if word == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", word)
}

func timeOf(nanoseconds int64) time.Duration { return time.Duration(nanoseconds) }
