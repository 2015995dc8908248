// Package live proves the client against a real IoT hub, and asks it what the documents leave open.
//
// # Usage
//
//	export FAIRLEAD_LIVE_SERVICE_CS='HostName=…;SharedAccessKeyName=iothubowner;SharedAccessKey=…'
//	make live
//
// docs/azure.md says how to make such a hub. The suite makes devices of its own (fairlead-live-…) and deletes them again.
// Without the variable it skips, and says so. Further variables:
//
//	FAIRLEAD_LIVE_CA        a PEM file that replaces the roots, as the embedded hub's ca.pem
//	FAIRLEAD_LIVE_MQTT      host:port to dial for MQTT in place of the hub's name and 8883
//	FAIRLEAD_LIVE_HTTPS     host:port to dial for REST in place of the hub's name and 443
//	FAIRLEAD_LIVE_ID_SCOPE, FAIRLEAD_LIVE_GROUP_KEY  of a provisioning service that assigns to the hub, and the key of an
//	                        enrollment group there; without them that step skips
//	FAIRLEAD_LIVE_PROVISIONING_HOST, FAIRLEAD_LIVE_PROVISIONING  the service's name where it is not Azure's, and host:port to
//	                        dial in its place
//	FAIRLEAD_LIVE_PATIENCE  how long to wait for what may never come, as the end of a session whose token has ended: 1m
//
// # Expected behaviour of the other side
//
// Each step asserts what the client relies on. What is only asked is printed as a line that begins with "saw:", to be
// compared with what the embedded hub does.
//
// # Concurrency
//
// One step at a time; the hub's quota is left alone.
//
// # Debugging
//
// The lines "saw:" stand in the output of `make live`; -run 'TestLive/NAME' runs one step.
//
// # Testing
//
// TestTheSuiteIsGreenAgainstTheEmbeddedHub runs every step against the embedded hub, by the same variables, in virtual time.
package live
