package credentials

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/fairlead-iot/fairlead/core"
)

// ConnectionString is what a device's or module's connection string says.
type ConnectionString struct {
	// Identity names the device or module; Gateway is GatewayHostName.
	Identity core.Identity
	// Key is the base64 text of SharedAccessKey, which has been checked; "" with X.509.
	Key core.Secret
	// X509 is set when the string says x509=true: then the certificate comes from elsewhere.
	X509 bool
}

// The keys of a connection string, case-sensitive as in Azure's own device clients.
const (
	fieldHostName        = "HostName"
	fieldDeviceID        = "DeviceId"
	fieldModuleID        = "ModuleId"
	fieldKey             = "SharedAccessKey"
	fieldKeyName         = "SharedAccessKeyName"
	fieldSignature       = "SharedAccessSignature"
	fieldGatewayHostName = "GatewayHostName"
	fieldX509            = "x509"
)

var fieldNames = []string{
	fieldHostName, fieldDeviceID, fieldModuleID, fieldKey, fieldKeyName, fieldSignature, fieldGatewayHostName, fieldX509,
}

// ParseConnectionString parses the connection string of a device
//
//	HostName=<hub>;DeviceId=<device>[;ModuleId=<module>][;GatewayHostName=<gateway>];SharedAccessKey=<base64>
//
// or the same with x509=true in the key's place. White space and a byte order mark around it (a file's) and one trailing
// semicolon are ignored; everything else that is not understood is an error that says what to do, wraps
// core.ErrInvalid, and contains no value from the string, since any of them may be the key.
//
// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-security
func ParseConnectionString(text string) (ConnectionString, error) {
	cs, err := parseConnectionString(text)
	if err != nil {
		return ConnectionString{}, fmt.Errorf("parse connection string: %w: %w", err, core.ErrInvalid)
	}
	return cs, nil
}

func parseConnectionString(text string) (ConnectionString, error) {
	var cs ConnectionString
	fields, err := splitFields(text)
	if err != nil {
		return cs, err
	}
	_, hasKey := fields[fieldKey]
	_, hasX509 := fields[fieldX509]
	switch {
	case fields[fieldSignature] != "":
		return cs, errors.New("SharedAccessSignature cannot stand in a device's connection string; give the token as a SAS token instead")
	case fields[fieldDeviceID] == "" && (fields[fieldKeyName] != "" || hasKey):
		return cs, errors.New("it has no DeviceId: this is a service's connection string (a shared access policy's); " +
			"copy the device's own, from the device's page in the portal or `az iot hub device-identity connection-string show`")
	case fields[fieldKeyName] != "":
		return cs, errors.New("SharedAccessKeyName belongs to a service's connection string; a device must not hold a policy's key; " +
			"copy the device's own connection string")
	case fields[fieldHostName] == "":
		return cs, errors.New("HostName is missing")
	case fields[fieldDeviceID] == "":
		return cs, errors.New("DeviceId is missing")
	case hasKey && hasX509:
		return cs, errors.New("SharedAccessKey and x509 exclude each other; remove one")
	case !hasKey && !hasX509:
		return cs, errors.New("SharedAccessKey is missing (or x509=true, with a certificate)")
	}
	cs.Identity = core.Identity{
		Hostname: fields[fieldHostName],
		DeviceID: fields[fieldDeviceID],
		ModuleID: fields[fieldModuleID],
		Gateway:  fields[fieldGatewayHostName],
	}
	if err := CheckIdentity(cs.Identity); err != nil {
		return ConnectionString{}, err
	}
	if hasX509 {
		if !strings.EqualFold(fields[fieldX509], "true") {
			return ConnectionString{}, errors.New("x509 must be true, or be left out")
		}
		cs.X509 = true
		return cs, nil
	}
	cs.Key = core.Secret(fields[fieldKey])
	if _, err := decodeKey(cs.Key); err != nil {
		return ConnectionString{}, fmt.Errorf("SharedAccessKey: %w", err)
	}
	return cs, nil
}

// splitFields takes "k=v;k=v" apart. Values may contain "=" (base64 ends with it), never ";".
func splitFields(text string) (map[string]string, error) {
	text = strings.TrimSuffix(trim(text), ";")
	if text == "" {
		return nil, errors.New("it is empty")
	}
	if err := checkQuotes(text); err != nil {
		return nil, err
	}
	fields := make(map[string]string, len(fieldNames))
	for i, part := range strings.Split(text, ";") {
		if part == "" {
			return nil, fmt.Errorf("part %d of it is empty: a semicolon too many; remove it", i+1)
		}
		name, value, ok := strings.Cut(part, "=")
		if !ok {
			return nil, fmt.Errorf("part %d of it is not of the form name=value; if a shell printed it, quote the whole string", i+1)
		}
		known, exact := findField(name)
		switch {
		case !exact && known != "":
			return nil, fmt.Errorf("part %d of it has an unknown name; did you mean %s? Names are case-sensitive", i+1, known)
		case !exact:
			return nil, fmt.Errorf("part %d of it has an unknown name; known are %s", i+1, strings.Join(fieldNames, ", "))
		}
		if _, twice := fields[name]; twice {
			return nil, fmt.Errorf("%s stands twice in it", name)
		}
		if value == "" {
			return nil, fmt.Errorf("%s is empty", name)
		}
		if strings.TrimSpace(value) != value {
			return nil, fmt.Errorf("%s has white space around it; remove it", name)
		}
		fields[name] = value
	}
	return fields, nil
}

// trim takes off what files have around a text: white space, and the byte order mark that some editors write.
func trim(text string) string {
	return strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(text), "\ufeff"))
}

// checkQuotes finds the quotes of a shell or of a list of variables, which some programs keep as part of the text. They
// begin neither a connection string nor a token, and " ends neither; ' may end an id.
func checkQuotes(text string) error {
	if strings.HasPrefix(text, `"`) || strings.HasPrefix(text, "'") || strings.HasSuffix(text, `"`) {
		return errors.New("it stands in quotes; remove the quotes")
	}
	return nil
}

// findField returns the field of that name, or, with exact unset, the one that was probably meant.
func findField(name string) (field string, exact bool) {
	for _, f := range fieldNames {
		if f == name {
			return f, true
		}
	}
	for _, f := range fieldNames {
		if strings.EqualFold(f, strings.TrimSpace(name)) {
			return f, false
		}
	}
	return "", false
}

// CheckIdentity refuses host names, device ids and module ids that would change the meaning of a topic, a user name or a
// SAS resource, all of which contain them as they are.
//
// Ids: up to 128 characters of ASCII letters, digits and - : . + % _ # * ? ! ( ) , = @ $ ', case-sensitive. Of these,
// + and # are wildcards of MQTT topics, so that a device so named cannot subscribe; they are refused too.
// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-identity-registry#device-identity-properties
func CheckIdentity(id core.Identity) error {
	if err := checkHost("HostName", id.Hostname); err != nil {
		return err
	}
	if id.Gateway != "" {
		if err := checkHost("GatewayHostName", id.Gateway); err != nil {
			return err
		}
	}
	if err := checkID("DeviceId", id.DeviceID); err != nil {
		return err
	}
	if id.ModuleID != "" {
		return checkID("ModuleId", id.ModuleID)
	}
	return nil
}

func checkHost(field, host string) error {
	if host == "" || len(host) > 253 {
		return fmt.Errorf("%s must have 1 to 253 characters", field)
	}
	for _, r := range []byte(host) {
		if !isAlnum(r) && !strings.ContainsRune("-._:[]", rune(r)) {
			return fmt.Errorf("%s contains a character that no host name has; give the bare name, without scheme or path", field)
		}
	}
	return nil
}

func checkID(field, id string) error {
	if id == "" || len(id) > 128 {
		return fmt.Errorf("%s must have 1 to 128 characters", field)
	}
	for _, r := range []byte(id) {
		switch {
		case isAlnum(r) || strings.ContainsRune("-:.%_*?!(),=@$'", rune(r)):
		case r == '+' || r == '#':
			return fmt.Errorf("%s contains + or #, which are wildcards of MQTT topics: a device so named cannot receive", field)
		default:
			return fmt.Errorf("%s contains a character that the hub does not allow in ids", field)
		}
	}
	return nil
}

func isAlnum(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9'
}

// decodeKey decodes a key strictly: a key that lost or gained a character signs tokens which the hub refuses without a
// word about why, so it is better refused here. Its errors say nothing of the key but its length.
func decodeKey(key core.Secret) ([]byte, error) {
	text := key.Reveal()
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err == nil && !strings.ContainsAny(text, "\r\n") {
		if len(raw) == 0 {
			return nil, errors.New("the key is empty")
		}
		return raw, nil
	}
	switch {
	case len(text)%4 != 0:
		return nil, fmt.Errorf("the key is not base64: it has %d characters, not a multiple of 4; was it cut, or its trailing = lost?", len(text))
	case strings.ContainsAny(text, "-_"):
		return nil, errors.New("the key is not base64: it contains - or _ (the URL alphabet); the hub's keys use + and /")
	default:
		return nil, errors.New("the key is not base64: it contains a character that does not belong there; copy it again, whole")
	}
}
