package config

import (
	"fmt"
	"time"
)

type kind uint8

const (
	sectionKind   kind = iota // fixed keys: fields
	listKind                  // a list of sections: fields
	namedKind                 // a map from a name of the user's to a section: fields
	stringKind                //
	boolKind                  //
	intKind                   // min, max
	durationKind              // min, max in nanoseconds
	sizeKind                  // min, max in bytes
	enumKind                  // enum
	stringsKind               // a list of texts
	stringMapKind             // a map of texts
	freeKind                  // a section of whatever JSON can hold
	jsonKind                  // whatever JSON can hold
	sourceKind                // a secret, by a detour
	pemKind                   // certificates: {file: …} or the text
	fileKind                  // a file's name, relative to the file that names it
	proxyKind                 // none, environment, or a section: fields
	cipherKind                // a text, or a list of texts
)

// field describes one key: the one place that says what it means, what it may hold and what it is when left out. The
// reader, the defaults, `config explain` and `config schema` all come from it.
type field struct {
	name string
	kind kind
	doc  string
	// def is what the key is when left out, as it would be written in the file; "" where that is nothing.
	def string
	// defDoc says it in words where def alone would mislead.
	defDoc   string
	required bool
	enum     []string
	min, max int64
	// seconds: a bare number is a number of seconds, as in the Python SDK, which has this key.
	seconds bool
	// env: the environment and --set may give this key. Secrets, lists and what the user names are never among them.
	env bool
	// why says why no shorter duration is allowed, where that is not plain.
	why    string
	check  func(string) string // what is wrong with a text; "" if nothing
	fields []field
}

func (f *field) child(name string) *field {
	for i := range f.fields {
		if f.fields[i].name == name {
			return &f.fields[i]
		}
	}
	return nil
}

// Limits of the values, ours unless a source is named.
const (
	// maxKeepAlive is the most that the Python SDK allows, since the hub, behind Azure's load balancer, closes a
	// connection after 30 minutes without traffic:
	// https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub#default-keep-alive-timeout
	maxKeepAlive = 1740 * time.Second
	// minTokenTTL keeps renewal, which begins before the end, from becoming all that the device does. Below a
	// few minutes a token is for trying renewal out: the clocks of device and hub differ by more.
	minTokenTTL = 10 * time.Second
	maxTokenTTL = 365 * 24 * time.Hour
	// maxMethodTimeout is the hub's greatest responseTimeoutInSeconds:
	// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-direct-methods
	maxMethodTimeout     = 300 * time.Second
	defaultMethodTimeout = 25 * time.Second
	// maxUploads is what the hub allows a device:
	// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-quotas-throttling
	maxUploads     = 10
	minOutboxBytes = 512 << 10 // two of the largest messages
	day            = 24 * time.Hour
)

func proxyField(doc string) field {
	return field{
		name: "proxy_options", kind: proxyKind, def: "none", doc: doc,
		fields: []field{
			{name: "proxy_type", kind: enumKind, required: true, enum: []string{"HTTP", "HTTPS", "SOCKS4", "SOCKS5"}, doc: "How to speak to the proxy: HTTP and HTTPS mean the CONNECT method, HTTPS with TLS to the proxy itself."},
			{name: "proxy_addr", kind: stringKind, required: true, check: checkHost, doc: "The proxy's host name or address."},
			{name: "proxy_port", kind: intKind, required: true, min: 1, max: 65535, doc: "The proxy's TCP port."},
			{name: "proxy_username", kind: stringKind, doc: "User name, where the proxy wants one."},
			{name: "proxy_password", kind: sourceKind, doc: "Password, where the proxy wants one; a secret, see device.connection_string for its forms."},
			{name: "no_proxy", kind: stringKind, check: checkNoProxy, doc: "Hosts that are reached directly, separated by commas as in NO_PROXY: names with their subdomains, addresses, networks (10.0.0.0/8), each with a port or without."},
		},
	}
}

// uploadsProxyField has no fixed default: where the routes have a proxy, uploads must not go past it unasked.
func uploadsProxyField() field {
	f := proxyField("The proxy for uploads: none, environment (HTTPS_PROXY, else ALL_PROXY, and NO_PROXY), or a section.")
	f.def, f.defDoc = "", "that of the first mqttws route, else of the first route"
	return f
}

// schema returns the description of the whole file.
func schema() *field {
	return &field{kind: sectionKind, doc: "The configuration of a device.", fields: []field{
		{name: "version", kind: intKind, def: "1", min: 1, doc: "Version of this file's format. Left out, it is 1."},
		deviceSchema(),
		{name: "connection", kind: sectionKind, doc: "How the connection is made and kept.", fields: []field{
			{name: "auto_connect", kind: boolKind, def: "true", env: true, doc: "Connect when something needs a connection. Off, only `fairlead connect` or a plugin's Connect does."},
			{name: "connection_retry", kind: boolKind, def: "true", env: true, doc: "Connect again after a connection is lost or an attempt fails, for ever."},
			{name: "connection_retry_interval", kind: durationKind, def: "10s", min: int64(time.Second), max: int64(time.Hour), seconds: true, env: true, doc: "Longest wait between attempts in the first 5 minutes of an outage; in the first 45 s it is 2 s. The first attempt is immediate; waits then double from 1 s, with jitter."},
			{name: "connection_retry_max", kind: durationKind, def: "10m", min: int64(time.Second), max: int64(day), seconds: true, env: true, doc: "Longest wait between attempts later in an outage."},
			{name: "ensure_desired_properties", kind: boolKind, def: "true", env: true, doc: "Get the twin after each connect, so that no change of the desired properties is missed."},
			{name: "keep_alive", kind: durationKind, def: "60s", min: int64(time.Second), max: int64(maxKeepAlive), seconds: true, env: true, doc: "MQTT keep-alive, in whole seconds: a connection that has fallen silent is noticed as lost after at most this and 20 s."},
		}},
		{name: "tls", kind: sectionKind, doc: "Whom the device trusts. Left out: the machine's own roots.", fields: []field{
			{name: "server_verification_cert", kind: pemKind, doc: "PEM certificates that replace the roots for the hub and a gateway: {file: NAME} or the text itself."},
			{name: "extra_ca", kind: pemKind, doc: "PEM certificates that are trusted besides, everywhere (hub, provisioning, storage), as for a proxy that opens TLS: {file: NAME} or the text itself."},
			{name: "cipher", kind: cipherKind, doc: "Cipher suites of TLS 1.2 by their OpenSSL names, joined with colons or as a list. TLS 1.3 stays allowed beside them unless !TLSv1.3 is among them."},
		}},
		{name: "transports", kind: listKind, defDoc: "[{use: mqtt}]", doc: "The routes to the hub in order of preference. A route that does not get through gives way to the next.", fields: []field{
			{name: "use", kind: enumKind, required: true, enum: []string{UseMQTT, UseWebSocket}, doc: "mqtt: MQTT over TLS. mqttws: MQTT over WebSocket, which passes where only HTTPS does."},
			{name: "port", kind: intKind, min: 1, max: 65535, defDoc: "8883 for mqtt, 443 for mqttws", doc: "TCP port of the hub."},
			{name: "address", kind: stringKind, check: checkHost, doc: "Address or host name to dial instead of asking DNS for the hub's name, which is still the one that the certificate must bear."},
			proxyField("The proxy of this route: none, environment (HTTPS_PROXY, else ALL_PROXY, and NO_PROXY), or a section."),
		}},
		{name: "uploads", kind: sectionKind, doc: "Uploads of files to the storage behind the hub.", fields: []field{
			uploadsProxyField(),
			{name: "port", kind: intKind, def: "443", min: 1, max: 65535, env: true, doc: "TCP port of the hub's HTTPS, by which it is asked where to upload to. Where neither it nor address is given both are those of the first mqttws route."},
			{name: "address", kind: stringKind, check: checkHost, env: true, doc: "Address or host name to dial for it instead of asking DNS for the hub's name, which is still the one that the certificate must bear."},
			{name: "files", kind: intKind, def: "2", min: 1, max: maxUploads, env: true, doc: "How many files are uploaded at once; the others wait in order."},
			{name: "blocks", kind: intKind, def: "4", min: 1, max: 32, env: true, doc: "How many blocks of a file are under way at once, of up to 4 MiB each."},
			{name: "bandwidth", kind: sizeKind, min: 1 << 10, max: 1 << 40, env: true, defDoc: "without limit", doc: "Most bytes of files that are sent in a second, as in 256KiB."},
			{name: "max_streams", kind: sizeKind, def: "1GiB", min: 1 << 20, max: 1 << 50, env: true, doc: "Most bytes on disk of what plugins upload as a stream, which is written there first."},
		}},
		{name: "outbox", kind: sectionKind, doc: "Messages that the hub has not acknowledged yet.", fields: []field{
			{name: "mode", kind: enumKind, def: "memory", env: true, enum: []string{"memory", "disk"}, doc: "memory: a message is accepted once the hub has it. disk: once the hub or the disk has it, so that it outlives a crash."},
			{name: "linger", kind: durationKind, def: "2s", min: 0, max: int64(time.Minute), env: true, doc: "While online, how long a message may stay unacknowledged before it is written to disk."},
			{name: "max_bytes", kind: sizeKind, def: "64MiB", min: minOutboxBytes, max: 1 << 40, env: true, doc: "Most bytes that the outbox holds."},
			{name: "max_messages", kind: intKind, def: "100000", min: 1, max: 100_000_000, env: true, doc: "Most messages that the outbox holds."},
			{name: "max_age", kind: durationKind, min: int64(time.Second), max: int64(10 * 365 * day), env: true, defDoc: "without limit", doc: "A message that is older is given up."},
			{name: "on_full", kind: enumKind, env: true, enum: []string{"block", "drop_oldest", "drop_newest"}, defDoc: "block in memory, drop_oldest on disk", doc: "What happens to a message that finds the outbox full: block: its sender waits. drop_oldest: the oldest gives way. drop_newest: it is refused."},
		}},
		pluginSchema(),
		{name: "state_dir", kind: fileKind, env: true, defDoc: "$STATE_DIRECTORY, else ~/.local/state/fairlead", doc: "Directory for what outlives the process, and for the local socket. It is made with mode 0700."},
		{name: "log", kind: sectionKind, doc: "The log, on stderr.", fields: []field{
			{name: "level", kind: enumKind, def: "info", env: true, enum: []string{"debug", "info", "warn", "error"}, doc: "Least level that is logged."},
			{name: "format", kind: enumKind, def: "text", env: true, enum: []string{"text", "json", "journald"}, doc: "Form of a line."},
		}},
	}}
}

func deviceSchema() field {
	pass := field{name: "pass_phrase", kind: sourceKind, doc: "Pass phrase of the private key, where it has one; a secret, see device.connection_string for its forms."}
	cert := field{name: "cert_file", kind: fileKind, required: true, doc: "PEM file with the device's certificate and, after it, the chain."}
	key := field{name: "key_file", kind: fileKind, required: true, doc: "PEM file with the certificate's private key."}
	return field{name: "device", kind: sectionKind, required: true, doc: "Who the device is: exactly one of connection_string, symmetric_key, sastoken, x509, provisioning and edge_environment, and what goes with it.", fields: []field{
		{name: "connection_string", kind: sourceKind, doc: "The device's connection string. A secret comes as {file: NAME}, a file of root's or of the running user's with mode 0600; {credential: NAME}, from systemd's LoadCredential; {env: NAME}, a variable of the environment; or as the text itself."},
		{name: "symmetric_key", kind: sectionKind, doc: "Identity with a key.", fields: []field{
			{name: "hostname", kind: stringKind, required: true, check: checkHost, doc: "The hub's host name, as in myhub.azure-devices.net."},
			{name: "device_id", kind: stringKind, required: true, check: checkDeviceID, doc: "The device's id at the hub."},
			{name: "module_id", kind: stringKind, check: checkDeviceID, doc: "The module's id, for the identity of a module."},
			{name: "key", kind: sourceKind, required: true, doc: "The device's key, or the module's, in Base64; a secret, see device.connection_string for its forms."},
		}},
		{name: "sastoken", kind: sourceKind, doc: "Identity by a ready SAS token. A file is watched: replace it to update the token. A secret, see device.connection_string for its forms."},
		{name: "x509", kind: sectionKind, doc: "Identity with a certificate. Files that are replaced count from the next connection on. Beside a connection_string with x509=true it names the files alone.", fields: []field{
			{name: "hostname", kind: stringKind, check: checkHost, doc: "The hub's host name, as in myhub.azure-devices.net. Needed unless the connection string says it."},
			{name: "device_id", kind: stringKind, check: checkDeviceID, doc: "The device's id at the hub. Needed unless the connection string says it."},
			{name: "module_id", kind: stringKind, check: checkDeviceID, doc: "The module's id, for the identity of a module."},
			cert, key, pass,
		}},
		{name: "provisioning", kind: sectionKind, doc: "Identity that the Device Provisioning Service hands out; with x509, symmetric_key or group_symmetric_key as proof. The answer is kept in state_dir.", fields: []field{
			{name: "provisioning_host", kind: stringKind, def: "", defDoc: "global.azure-devices-provisioning.net", check: checkHost, doc: "Host name of the provisioning service."},
			{name: "port", kind: intKind, min: 1, max: 65535, defDoc: "8883 by mqtt, 443 by mqttws", doc: "TCP port of the provisioning service, for the first of the transports and its like."},
			{name: "address", kind: stringKind, check: checkHost, doc: "Address or host name to dial instead of asking DNS for provisioning_host, which is still the name that the certificate must bear."},
			{name: "id_scope", kind: stringKind, required: true, check: checkNotBlank, doc: "Id scope of the provisioning service, as in 0ne00000000."},
			{name: "registration_id", kind: stringKind, required: true, check: checkNotBlank, doc: "Registration id of the enrollment."},
			{name: "symmetric_key", kind: sourceKind, doc: "Key of the enrollment in Base64, already derived for this device; a secret, see device.connection_string for its forms."},
			{name: "group_symmetric_key", kind: sourceKind, doc: "Key of the enrollment group in Base64, from which the device's is derived. Who holds it can be any device of the group: for trials, better not for devices in the field. A secret, see device.connection_string for its forms."},
			{name: "x509", kind: sectionKind, doc: "Certificate of the enrollment.", fields: []field{cert, key, pass}},
			{name: "payload", kind: jsonKind, doc: "What is handed to the service's custom allocation: a section, a list, a text, a number, true or false."},
			{name: "reprovision", kind: enumKind, defDoc: ReprovisionRefused, enum: []string{ReprovisionRefused, ReprovisionAtStart, ReprovisionNever}, doc: "When a device that has a hub asks again where it belongs. when_refused: when the hub refuses it, or cannot be reached for 10 attempts. at_start: at each start too. never: not at all."},
		}},
		{name: "edge_environment", kind: boolKind, def: "false", doc: "Identity of an IoT Edge module, from the environment that the Edge runtime sets."},
		{name: "gateway_hostname", kind: stringKind, env: true, check: checkHost, doc: "Host to connect to in the hub's place, such as an IoT Edge gateway. A connection string may name it too (GatewayHostName)."},
		{name: "product_info", kind: stringKind, env: true, check: checkProductInfo, doc: "Added to the user agent that the hub sees. One that begins with dtmi: is taken for a Plug and Play model id."},
		{name: "sastoken_ttl", kind: durationKind, def: "1h", min: int64(minTokenTTL), max: int64(maxTokenTTL), seconds: true, env: true, why: "a token must outlive the connection that it is made for, and is renewed at 80 % of its life", doc: "How long a SAS token is valid that the device signs itself; it is renewed in good time before."},
	}}
}

func pluginSchema() field {
	return field{name: "plugins", kind: namedKind, doc: "The plugins by name, each a process of its own.", fields: []field{
		{name: "builtin", kind: enumKind, enum: []string{"hostmetrics", "thermostat"}, doc: "Name of a plugin that comes with the program. Exactly one of builtin and command."},
		{name: "command", kind: stringsKind, doc: "Program and its arguments. A name with a slash is relative to this file; one without is looked for in PATH."},
		{name: "methods", kind: stringsKind, defDoc: "what the plugin registers", check: checkMethod, doc: "Direct methods that go to this plugin. No two plugins may have the same."},
		{name: "messages", kind: sectionKind, doc: "Cloud-to-device messages that go to this plugin.", fields: []field{
			{name: "match", kind: stringMapKind, required: true, doc: "Properties that a message must have, with these values. The first plugin in file order that matches gets it."},
		}},
		{name: "twin_keys", kind: stringsKind, defDoc: "all", check: checkTwinKey, doc: "Top-level desired properties that this plugin is given."},
		{name: "uploads", kind: stringsKind, defDoc: "none", check: checkNotBlank, doc: "Directories from which this plugin may have files uploaded, links within them followed only to places that are within one. Relative to this file. Streams need no entry."},
		{name: "method_timeout", kind: durationKind, def: formatDuration(defaultMethodTimeout), min: int64(time.Second), max: int64(maxMethodTimeout), doc: "Longest time for the answer to a direct method; stay below the caller's own limit (30 s unless it says otherwise)."},
		{name: "env", kind: stringMapKind, doc: "Variables of the plugin's environment, besides the few that every plugin gets. They are seen in the process list of root: no secrets."},
		{name: "settings", kind: freeKind, doc: "The plugin's own settings, handed to it as they stand."},
	}}
}

// walk calls f for every field with its key as `config explain` writes it: lists with [], names of the user's as NAME.
func (f *field) walk(prefix string, visit func(key string, f *field)) {
	for i := range f.fields {
		c := &f.fields[i]
		key := joinKey(prefix, c.name)
		visit(key, c)
		switch c.kind {
		case listKind:
			c.walk(key+"[]", visit)
		case namedKind:
			c.walk(key+".NAME", visit)
		default:
			c.walk(key, visit)
		}
	}
}

func joinKey(prefix, name string) string {
	if prefix == "" {
		return name
	}
	return prefix + "." + name
}

func itemKey(prefix string, i int) string { return fmt.Sprintf("%s[%d]", prefix, i) }
