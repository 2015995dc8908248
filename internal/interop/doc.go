// Package interop tests Fairlead against programs that its authors did not write.
//
// # Usage
//
//	go test -tags interop -timeout 20m ./internal/interop
//
// Each test needs a program on this machine (mosquitto; node with the packages that node/install puts outside the
// repository; squid, tinyproxy, stunnel4, microsocks, danted, nft) and skips with a line that names it where it is missing.
//
// # Expected behaviour of the other side
//
// mosquitto is a general MQTT broker: it checks packets, not IoT Hub's rules. The hub's rules are tested against
// Microsoft's SDKs for Node: the device's over MQTT at any port, with keys and certificates, and, in a network namespace
// where 443 is free, over WebSocket and HTTPS, together with the service's and those of the provisioning service. They model
// nothing: they are the clients that users have. node/device.js and node/service.js do what the test tells them, a JSON
// object a line, so that each step is compared with what the hub saw of it; node/provision.js is told which devices to be and
// says what became of them; node/provisioning_service.js asserts by itself. Once the hub is the built program, under a name
// as Azure's, and killed in between. bytes_test.go has the device's SDK and our client do the same through a recorder, and
// compares what they sent; docs/parity.md lists what differs on purpose.
//
// proxy_linux_test.go puts the built program into a network whose only neighbour is a proxy, and tries every proxy and
// every way in which one fails: a row each, tried by each column (mqtt, mqttws, provisioning, uploads by HTTPS with a key
// and with a certificate). To let another way to the hub go through all of them, add a column. A row's proxies are set up by
// proxy_servers_linux_test.go. What these servers are not: a domain controller behind NTLM, for which a script answers, and
// a proxy with SOCKS 4a, which no package here has.
//
// site_linux_test.go builds the plant that config/example.yaml is for: no answer to names, direct packets swallowed, a
// squid that lets those out to port 443 who know the password; then the firewall opens. With -v it prints how long the
// device took.
//
// Files are uploaded by the device's SDK, and by Azure's storage clients for Node and Go, to the hub's own blob endpoint and
// to Azurite. Azurite is Microsoft's emulator of storage: it checks signatures and block lists as Azure does. It runs with
// --loose, since the SDK sends a header that it refuses otherwise.
package interop
