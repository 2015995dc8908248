package sdk

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// Message is one telemetry message, or one cloud-to-device message. A message handed to Send is shared until Send
// returns and must not be changed before.
type Message = core.Message

// Desired is a state of the desired properties: the document as it is now, and the patch that led there.
type Desired = core.Desired

// Connection is the state of the connection between the device and the hub.
type Connection = core.Connection

// Identity names the device, or the module of a device.
type Identity = core.Identity

// Error carries the hub's status and tracking id where it answered with an error; use errors.As.
type Error = core.Error

// What errors.Is finds in the errors of Device's operations.
var (
	ErrCredential        = core.ErrCredential        // the hub refused the device's proof of identity
	ErrConnectionFailed  = core.ErrConnectionFailed  // no session could be made
	ErrConnectionDropped = core.ErrConnectionDropped // the session ended before the operation did
	ErrTimeout           = core.ErrTimeout           // the operation's own limit ended it
	ErrCancelled         = core.ErrCancelled         // it was given up, and will not be sent later
	ErrNotConnected      = core.ErrNotConnected      // there is no session, and auto_connect is off
	ErrClosed            = core.ErrClosed            // the host has ended the plugin's session
	ErrTooLarge          = core.ErrTooLarge          // the hub would not take it
	ErrInvalid           = core.ErrInvalid           // it is malformed
	ErrService           = core.ErrService           // the hub answered with an error status
	ErrUnsupported       = core.ErrUnsupported       // this host cannot do that
)

// Plugin collects what a plugin does, as http.ServeMux does for a server. All its methods but Serve are called before
// Serve, from one goroutine.
type Plugin struct {
	name     string
	methods  map[string]MethodHandler
	messages MessageHandler
	desired  DesiredHandler
	loop     func(ctx context.Context, dev *Device) error
	settings []any
}

// New returns a plugin without handlers. The name is what it calls itself; in the configuration it may have another.
func New(name string) *Plugin {
	return &Plugin{name: name, methods: make(map[string]MethodHandler)}
}

// MessageHandler handles a cloud-to-device message. nil means that it is done, and the hub forgets it. An error means
// not now: the message is handed out again, within its limit, and then goes to the dead letters; an error made by Reject
// sends it there at once. ctx ends when the message's time is over or the plugin is to end.
type MessageHandler func(ctx context.Context, m *Message) error

// DesiredHandler applies a state of the desired properties. It is called once after the start, with the current
// document, and after each change, in order. An error is logged by the host; to tell the hub, use Device.Report.
type DesiredHandler func(ctx context.Context, d *Desired) error

// HandleMethod registers the handler of a direct method. It panics if the method has one already.
func (p *Plugin) HandleMethod(name string, h MethodHandler) {
	if _, ok := p.methods[name]; ok {
		panic(fmt.Sprintf("sdk: method %q has two handlers", name))
	}
	p.methods[name] = h
}

// HandleMessages registers the handler of cloud-to-device messages. They are handled one at a time, in order of arrival.
func (p *Plugin) HandleMessages(h MessageHandler) { p.messages = h }

// HandleDesired registers the handler of desired properties. Changes are handled one at a time, in order.
func (p *Plugin) HandleDesired(h DesiredHandler) { p.desired = h }

// Run registers what the plugin does by itself: reading sensors, sending telemetry. loop is called once per start, when
// the plugin is registered (the device may be offline then). It returns when ctx ends, which asks for an orderly stop:
// what it still sends while it returns is carried out. An error ends the plugin, and the host starts it again with
// back-off; nil leaves the handlers working.
func (p *Plugin) Run(loop func(ctx context.Context, dev *Device) error) { p.loop = loop }

// Settings has the plugin's settings from the configuration decoded into v, a pointer, before the handlers and the loop
// begin. What v holds is the default. Unknown names are refused, and if v has a method Validate() error, so is what it
// refuses: the host then shows the reason and waits for a changed configuration.
func (p *Plugin) Settings(v any) { p.settings = append(p.settings, v) }

// methodNames returns the registered methods, sorted.
func (p *Plugin) methodNames() []string {
	names := make([]string, 0, len(p.methods))
	for n := range p.methods {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// configure decodes the settings.
func (p *Plugin) configure(settings json.RawMessage) error {
	for _, v := range p.settings {
		if err := decodeSettings(settings, v); err != nil {
			return err
		}
	}
	return nil
}

// Reject wraps err for a MessageHandler: the message can never be handled.
func Reject(err error) error { return &rejection{err} }

type rejection struct{ err error }

func (r *rejection) Error() string { return "reject: " + r.err.Error() }
func (r *rejection) Unwrap() error { return r.err }

// Sleep waits for d or until ctx ends, whichever is first.
func Sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
