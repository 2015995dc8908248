//go:build live

package live

import (
	"os"
	"testing"
)

// TestLive runs the suite against the hub that the environment names.
func TestLive(t *testing.T) {
	h := open(t, os.Getenv, nil)
	if h == nil {
		t.Skipf("no hub is named: set %s to the connection string of its policy iothubowner (docs/azure.md says how)", serviceCS)
	}
	for _, s := range steps() {
		t.Run(s.name, func(t *testing.T) { s.run(t, h) })
	}
}
