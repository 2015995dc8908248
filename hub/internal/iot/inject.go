package iot

import (
	"bytes"
	"slices"
	"strconv"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
)

// Application properties by which Azure's own end-to-end tests order faults, as
// in FaultInjectionConstants.cs of https://github.com/Azure/azure-iot-sdk-csharp.
const (
	injectType     = "AzIoTHub_FaultOperationType"
	injectDelay    = "AzIoTHub_FaultOperationDelayInSecs"
	injectDuration = "AzIoTHub_FaultOperationDurationInSecs"
)

// maxInjected bounds the message ids that are remembered per identity.
const maxInjected = 100

// Injected applies a fault that a telemetry message orders, and reports whether
// the message must stay without its PUBACK: the hub cuts before it acknowledges.
// A message id is applied once, or a device that sends the message again until
// it is acknowledged would be cut for ever.
func (se *Session) Injected(bag []byte) bool {
	if !bytes.Contains(bag, []byte(injectType)) {
		return false
	}
	b, err := ParseBag(string(bag))
	if err != nil {
		return false
	}
	s, id := se.svc, se.ident.id
	seconds := func(name string) time.Duration {
		n, _ := strconv.Atoi(b.Properties[name]) // none is 0
		return time.Duration(max(n, 0)) * time.Second
	}
	f := api.Fault{Duration: api.Duration(seconds(injectDuration))}
	switch kind := b.Properties[injectType]; kind {
	case "KillTcp", "ShutDownMqtt":
		// One cut: the device may come back at once.
		f = api.Fault{Name: api.FaultCut, Device: id.String()}
	case "InvokeAuthError": // hub-wide, and no connection ends by it
		f.Name, f.Code = api.FaultConnack, 5
	case "InvokeThrottling":
		f.Name, f.Code = api.FaultTwinStatus, 429
	default:
		s.log.Info("fault on order that this hub does not have", "device", id.String(), "type", kind)
		return false
	}
	if f.Name != api.FaultCut && f.Duration == 0 {
		return false // it would never end
	}
	if message := b.System["message-id"]; message != "" {
		s.mu.Lock()
		known := slices.Contains(se.ident.injected, message)
		if !known {
			se.ident.injected = append(se.ident.injected, message)
			if over := len(se.ident.injected) - maxInjected; over > 0 {
				se.ident.injected = slices.Delete(se.ident.injected, 0, over)
			}
		}
		s.mu.Unlock()
		if known {
			return false
		}
	}
	s.log.Info("fault on order", "device", id.String(), "fault", f.Name)
	time.AfterFunc(seconds(injectDelay), func() {
		if _, err := s.AddFault(f); err != nil {
			s.log.Debug("fault on order came too late", "err", err)
		}
	})
	return f.Name == api.FaultCut
}
