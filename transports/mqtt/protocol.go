package mqtt

import (
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/fairlead-iot/fairlead/core"
)

// Facts of the hub's MQTT, from https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub
const (
	// DefaultPort is the hub's port for MQTT in TLS.
	DefaultPort = 8883
	apiVersion  = "2021-04-12"
	// maxKeepAliveSeconds leaves half a minute until the hub hangs up: "server timeout = 1.5 x client keepalive, capped
	// at 29.45 minutes" (1767 s). It is the seed client's bound.
	maxKeepAliveSeconds = 1740

	methodPrefix   = "$iothub/methods/POST/"
	methodResponse = "$iothub/methods/res/"
	twinResPrefix  = "$iothub/twin/res/"
	twinGet        = "$iothub/twin/GET/?$rid="
	twinReported   = "$iothub/twin/PATCH/properties/reported/?$rid="
	desiredPrefix  = "$iothub/twin/PATCH/properties/desired/"

	// twinGetBody: both of Microsoft's clients send one space, never an empty body.
	twinGetBody = " "
)

// The system properties in a topic's property bag.
// https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub#sending-device-to-cloud-messages
const (
	propID              = "$.mid"
	propCorrelationID   = "$.cid"
	propUserID          = "$.uid"
	propTo              = "$.to"
	propContentType     = "$.ct"
	propContentEncoding = "$.ce"
	propExpiry          = "$.exp"
	propInterfaceID     = "$.ifid"
	propComponent       = "$.sub"
	propOutput          = "$.on"
	propCreationTime    = "$.ctime"
	propAck             = "iothub-ack"
)

// Facts of MQTT 3.1.1, from https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/os/mqtt-v3.1.1-os.html
const (
	packetConnack    = 2
	packetPublish    = 3
	packetPuback     = 4
	packetSubscribe  = 8
	packetSuback     = 9
	packetPingreq    = 12
	packetPingresp   = 13
	packetDisconnect = 14

	subackFailure = 0x80
	maxTopicBytes = 65535
)

// connackKinds is what each refusal of section 3.2.2.3 means to the machine. The real hub answers 5 to a bad, expired or
// misdirected token and to an unknown device; 3 to a busy hub, and perhaps to a disabled device.
var connackKinds = map[byte]core.Kind{
	1: core.Fatal,
	2: core.Fatal,
	3: core.Unavailable,
	4: core.Unauthorized,
	5: core.Unauthorized,
}

var connackTexts = map[byte]string{
	1: "the hub does not speak this version of MQTT",
	2: "the hub does not accept the client identifier: is the device id right, letter case included?",
	3: "the hub is unavailable, or the device is disabled there",
	4: "the hub does not accept the user name or the password",
	5: "the hub does not accept the device's proof of identity: is the key the device's own, the device known and enabled, and this device's clock right?",
}

// connackError returns the error of a CONNACK that is not 0.
func connackError(code byte) error {
	text, known := connackTexts[code]
	if !known {
		text = "the hub answered with a code that MQTT 3.1.1 does not have"
	}
	kind := connackKinds[code] // an unknown one is Transient
	err := fmt.Errorf("%s (CONNACK %d)", text, code)
	if kind == core.Unauthorized {
		err = fmt.Errorf("%w: %w", err, core.ErrCredential)
	}
	return &core.Error{Op: "connect", Kind: kind, Phase: phaseMQTT, Status: int(code), Err: err}
}

const phaseMQTT = "mqtt"

// violation is the error of a hub that does not keep to MQTT 3.1.1.
func violation(format string, args ...any) error {
	return &core.Error{
		Op: "read from hub", Kind: core.Transient, Phase: phaseMQTT,
		Err: fmt.Errorf("malformed MQTT: "+format, args...),
	}
}

// errSessionClosed ends a session that Close was called on.
var errSessionClosed = errors.New("session closed")

// username returns the MQTT user name: hub, client id, api-version and who is speaking. The hub's and the device's names
// stand in it as they are; values are percent-encoded.
func username(id core.Identity, userAgent, productInfo string) string {
	var b strings.Builder
	b.WriteString(id.Hostname)
	b.WriteByte('/')
	b.WriteString(id.ClientID())
	b.WriteString("/?api-version=" + apiVersion + "&DeviceClientType=")
	// A model id announces a Plug and Play device. https://learn.microsoft.com/azure/iot/concepts-developer-guide-device
	if strings.HasPrefix(productInfo, "dtmi:") {
		b.WriteString(escape(userAgent))
		b.WriteString("&model-id=")
		b.WriteString(escape(productInfo))
		return b.String()
	}
	if productInfo != "" {
		userAgent += " " + productInfo
	}
	b.WriteString(escape(userAgent))
	return b.String()
}

// defaultUserAgent names the program to the hub where the caller does not.
func defaultUserAgent() string {
	return "fairlead (" + runtime.Version() + "; " + runtime.GOOS + "; " + runtime.GOARCH + ")"
}
