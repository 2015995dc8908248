//go:build linux

package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
)

// hubReady is what the hub's process says first.
type hubReady struct{ Address, HTTPS, CAFile string }

// hubOrder is a request to the hub's process; one of them is set.
type hubOrder struct {
	Add      string // register a device
	Counters string // what was seen of a device
	Methods  *methods
}

// methods is a run of direct methods, one after the other.
type methods struct {
	Device string
	Count  int
}

type hubAnswer struct {
	Error            string          `json:",omitempty"`
	ConnectionString string          `json:",omitempty"`
	Counters         api.Counters    `json:",omitzero"`
	Took             []time.Duration `json:",omitempty"` // of each method, as the hub sees it
}

// runHub is the hub's process: orders come on stdin, answers go to stdout, until stdin ends.
func runHub(dir string) error {
	h, err := hub.New(hub.Config{})
	if err != nil {
		return err
	}
	if err := h.Start(); err != nil {
		return err
	}
	defer h.Close(context.Background()) //nolint:errcheck // nothing of it is kept
	ready := hubReady{Address: h.MQTTAddr().String(), HTTPS: h.HTTPSAddr().String(), CAFile: filepath.Join(dir, "ca.pem")}
	if err := os.WriteFile(ready.CAFile, h.CAPEM(), 0o600); err != nil {
		return err
	}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	if err := out.Encode(ready); err != nil {
		return err
	}
	for {
		var o hubOrder
		if err := in.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		a, err := o.carryOut(h)
		if err != nil {
			a.Error = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}

func (o hubOrder) carryOut(h *hub.Hub) (a hubAnswer, err error) {
	switch {
	case o.Add != "":
		if _, err := h.CreateDevice(api.Device{DeviceID: o.Add}); err != nil {
			return a, err
		}
		a.ConnectionString, err = h.ConnectionString(o.Add)
	case o.Counters != "":
		a.Counters, err = h.Counters(o.Counters)
	case o.Methods != nil:
		a.Took, err = o.Methods.call(h)
	}
	return a, err
}

func (m methods) call(h *hub.Hub) ([]time.Duration, error) {
	const payload = `{"value":21.5}`
	took := make([]time.Duration, 0, m.Count)
	for range m.Count {
		began := time.Now()
		r, err := h.CallMethod(context.Background(), m.Device, api.MethodRequest{MethodName: "echo", Payload: json.RawMessage(payload)})
		took = append(took, time.Since(began))
		if err != nil {
			return nil, err
		}
		if r.Status != 200 || string(r.Payload) != payload {
			return nil, fmt.Errorf("the method was answered %d %s", r.Status, r.Payload)
		}
	}
	return took, nil
}
