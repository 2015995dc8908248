// Package sdk is what the author of a plugin imports.
//
// # Usage
//
//	func main() {
//		p := sdk.New("thermostat")
//		p.HandleMethod("setPoint", func(ctx context.Context, req *sdk.MethodRequest) (any, error) {
//			var celsius float64
//			if err := req.Decode(&celsius); err != nil {
//				return nil, err
//			}
//			return "ok", set(ctx, celsius)
//		})
//		p.Run(func(ctx context.Context, dev *sdk.Device) error {
//			for ; ctx.Err() == nil; sdk.Sleep(ctx, 10*time.Second) {
//				if err := dev.SendJSON(ctx, read()); err != nil {
//					dev.Log().Warn("not sent", "error", err)
//				}
//			}
//			return nil
//		})
//		p.Serve()
//	}
//
// A Plugin collects handlers and a loop, as http.ServeMux collects handlers; Serve runs it in a process that the runtime
// started. Handlers answer what the hub asks: direct methods, cloud-to-device messages, desired properties. The loop is
// given the Device, by which the plugin speaks: telemetry, reported properties, the twin, the connection's state.
//
// # Concurrency
//
// Methods run concurrently, each in a goroutine of its own. Messages are handled one at a time in order of arrival, and
// so are desired properties; the two do not wait for each other, nor for methods. Functions given to OnState,
// OnBackgroundError and OnNewSASToken run one at a time. The Device may be used from anywhere, also after the handler
// that got it has returned; each of its operations ends when its context does.
//
// Send returns when the message is accepted: the hub has it, or the disk has it. Messages that queue while the stream is
// busy leave together, and a single one leaves at once, so that a loop of Send from several goroutines, SendBatch and
// SendAsync are all fast. While the outbox is full they wait. Order holds for calls that follow one another.
//
// A panic in a handler is logged and answered as an error. A panic in the loop, or an error from it, ends the plugin;
// the host starts it again, with back-off.
//
// # Expected behaviour of the other side
//
// The host cancels a call's context at its deadline and answers the hub by itself. A restarted plugin is handed again
// the desired document and the messages that it had not finished, never a method call. When the host is gone, so is the
// plugin.
//
// # Debugging
//
// Device.Log goes to the host's log under the plugin's name; what is printed on stderr, and on stdout, goes there as
// well. Print to see, but do not print secrets.
//
// # Testing
//
// Package sdktest runs a plugin inside a test, behind the real wire.
package sdk
