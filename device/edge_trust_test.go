package device_test

import (
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"testing"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

func TestTheIoTEdgeRuntimeIsAskedAgainWhomToTrust(t *testing.T) {
	h := hubtest.Start(t)
	stranger := hubtest.NewCA(t, "before").PEM()
	silent := errors.New("no such socket")
	for _, c := range []struct {
		name    string
		answers [][]byte // nil is an error; the last one is repeated
		opens   bool
		asked   int
		says    string
	}{
		{"it knew at once", [][]byte{h.CAPEM()}, true, 1, ""},
		{"the Edge hub has a new authority", [][]byte{stranger, h.CAPEM()}, true, 2, ""},
		{"it says the same again", [][]byte{stranger}, false, 2, "which is not trusted"},
		{"it does not answer", [][]byte{stranger, nil}, false, 2, "the IoT Edge runtime does not say whom else to trust: no such socket"},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked := 0
			routes, err := device.EdgeTrust{
				Bundle: func(context.Context) ([]byte, error) {
					text := c.answers[min(asked, len(c.answers)-1)]
					if asked++; text == nil {
						return nil, silent
					}
					return text, nil
				},
				Transports: func(authorities []byte) ([]core.Transport, error) {
					m, err := mqtt.New(mqtt.Config{
						Identity: core.Identity{Hostname: "localhost", DeviceID: "gw", ModuleID: "filter"}, Port: h.MQTTPort(),
						TLS: netdial.TLSConfig{ServerVerificationCert: authorities},
					})
					return []core.Transport{m}, err
				},
			}.Routes(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if name := routes[0].Name(); name != "mqtt" {
				t.Errorf("the route is called %q", name)
			}
			link, err := routes[0].Open(t.Context(), core.Credential{})
			if (err == nil) != c.opens || asked != c.asked {
				t.Errorf("opened: %v; asked %d times, want %d", err, asked, c.asked)
			}
			if err == nil {
				if err := link.Close(); err != nil {
					t.Error(err)
				}
				return
			}
			if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); !unknown || core.KindOf(err) != core.Fatal || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
		})
	}
}
