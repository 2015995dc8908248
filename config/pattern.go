package config

import (
	"regexp"
	"sync"
)

// pattern compiles a regular expression when it is first used: most are not in most runs, and together they took a tenth
// of the time that a device needs to be connected. For the same reason none counts far: each {0,99} is written out.
func pattern(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}
