package iot

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
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

// Injected is Inject for a message of this session: it costs next to nothing
// where nothing is ordered.
func (se *Session) Injected(bag []byte) bool {
	if !bytes.Contains(bag, []byte(injectType)) {
		return false
	}
	return se.svc.Inject(se.ident.id, bag)
}

// Inject applies a fault that a telemetry message orders, and reports whether
// the message must stay without its PUBACK: the hub cuts before it acknowledges.
// A message id is applied once, or a device that sends the message again until
// it is acknowledged would be cut for ever. What Azure's tests order of AMQP
// connections, sessions and links this hub does not have.
func (s *Service) Inject(id api.ID, bag []byte) bool {
	b, err := ParseBag(string(bag))
	if err != nil {
		return false
	}
	property := func(name string) string { // in any case: HTTPS names properties by headers
		for key, value := range b.Properties {
			if strings.EqualFold(key, name) {
				return value
			}
		}
		return ""
	}
	seconds := func(name string) time.Duration {
		n, _ := strconv.Atoi(property(name)) // none is 0
		return time.Duration(max(n, 0)) * time.Second
	}
	f := api.Fault{Duration: api.Duration(seconds(injectDuration))}
	switch kind := property(injectType); kind {
	case "":
		return false
	case "KillTcp", "ShutDownMqtt":
		// One cut: the device may come back at once.
		f = api.Fault{Name: api.FaultCut, Device: id.String()}
	case "InvokeAuthError": // hub-wide, and no connection ends by it
		f.Name, f.Code = api.FaultConnack, 5
	case "InvokeThrottling":
		f.Name, f.Device = api.FaultThrottle, id.String()
	case "InvokeMaxMessageQuota":
		f.Name, f.Device = api.FaultQuota, id.String()
	default:
		s.log.Info("fault on order that this hub does not have", "device", id.String(), "type", kind)
		return false
	}
	if f.Name != api.FaultCut && f.Duration == 0 {
		return false // it would never end
	}
	if message := b.System["message-id"]; message != "" && !s.firstOrder(id, message) {
		return false
	}
	s.log.Info("fault on order", "device", id.String(), "fault", f.Name)
	time.AfterFunc(seconds(injectDelay), func() {
		if _, err := s.AddFault(f); err != nil {
			s.log.Debug("fault on order came too late", "err", err)
		}
	})
	return f.Name == api.FaultCut
}

// firstOrder remembers a message id, and reports whether it is new.
func (s *Service) firstOrder(id api.ID, message string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	ident, err := s.find(id)
	if err != nil || slices.Contains(ident.injected, message) {
		return false
	}
	ident.injected = append(ident.injected, message)
	if over := len(ident.injected) - maxInjected; over > 0 {
		ident.injected = slices.Delete(ident.injected, 0, over)
	}
	return true
}
