package doctor

import (
	"fmt"
	"slices"
	"strings"
)

// Code is a kind of finding.
type Code struct {
	// Name is stable: programs and people look for it.
	Name  string
	Layer string
	// Cause says in general what is behind it. A report says it in particular.
	Cause string
	// Fix is what to do. In a report the names in braces stand for what was found.
	Fix string
}

// Codes lists every finding there is, in the order of the layers. docs/doctor.md has the same table.
func Codes() []Code { return slices.Clone(codes) }

var codes = []Code{
	{"config-wrong", LayerConfig, "The configuration, or a file that it names, cannot be used.", "Mend it at the place that is named; `fairlead check` looks again without a network."},
	{"config-unsupported", LayerConfig, "The configuration asks for what this version cannot do; `fairlead run` refuses it.", "Take the key out, or update fairlead."},
	{"config-unwise", LayerConfig, "The configuration works, but something about it is unsafe or without effect.", "Change it as the text says."},

	{"clock-behind", LayerClock, "This machine's clock is late: it says a time before this program was made, or before the hub's. The hub refuses tokens more than five minutes off, and certificates look as if they were not valid yet.", "Set the clock: `timedatectl set-ntp true`, or `date -u -s '…'`; allow NTP (UDP 123) in the firewall, and see whether the battery of the clock is empty."},
	{"clock-ahead", LayerClock, "This machine's clock is ahead of the hub's. Tokens live longer than they should, and certificates seem to have ended.", "Set the clock: `timedatectl set-ntp true`, or `date -u -s '…'`; look at the time zone, too: clocks that are off by whole hours often have local time where UTC belongs."},

	{"state-dir-missing", LayerStorage, "The state directory cannot be made.", "Make it for the user that runs fairlead: `install -d -m 700 -o USER {dir}`."},
	{"state-dir-not-writable", LayerStorage, "The user that runs fairlead may not write to the state directory.", "`chown -R USER {dir}`, or name another state_dir; run the doctor as the same user as fairlead."},
	{"state-dir-read-only", LayerStorage, "The file system of the state directory is mounted read-only.", "`mount -o remount,rw` it; if it fell back to read-only by itself, look for errors of the disk in `dmesg`. On an image that is read-only, name a state_dir on a disk that is not."},
	{"state-dir-failing", LayerStorage, "Writing to the state directory fails.", "Look for errors of the disk in `dmesg`."},
	{"disk-full", LayerStorage, "There is no space left for the state directory (or no inode, or the quota is used up).", "Make space: `df -h {dir}`, `df -i {dir}`, `du -xh {dir}`."},
	{"disk-low", LayerStorage, "The file system of the state directory is nearly full, or has less space than the outbox may take.", "Make space, or lower outbox.max_bytes."},
	{"state-dir-open", LayerStorage, "Others may read the state directory, or files in it, which may hold secrets.", "`chmod -R go= {dir}`."},

	{"credential-unusable", LayerCredential, "No credential can be made of what the configuration names.", "Mend what is named; `fairlead check` looks again without a network."},
	{"credential-ended", LayerCredential, "The SAS token or the certificate has ended.", "Have a new one made. A token: replace its file, or `fairlead token update`. A certificate: replace its files, and tell the hub if it knows it by its thumbprint."},
	{"credential-early", LayerCredential, "The certificate is not valid yet, by this machine's clock.", "Set the clock; if that is right, have the certificate made anew."},
	{"credential-ends-soon", LayerCredential, "The certificate or the SAS token ends soon, and the device cannot renew it by itself.", "Replace it before."},
	{"credential-refused", LayerCredential, "The hub knows no such device, or the key, the token or the certificate is not this device's (401).", "Compare the device id and the key with the hub: `az iot hub device-identity connection-string show -n HUB -d DEVICE`. A key that was rolled must be copied here. See that the clock is right."},
	{"device-disabled", LayerCredential, "The device is disabled at the hub.", "`az iot hub device-identity update -n HUB -d DEVICE --set status=enabled`, or ask whoever disabled it."},
	{"device-unknown", LayerCredential, "The hub has no device of this id.", "Register it: `az iot hub device-identity create -n HUB -d DEVICE`, or correct the device id. With a provisioning service: `fairlead run` registers it again."},
	{"hub-refused", LayerCredential, "The hub forbids the request (403): its IP filter, a private endpoint, or its daily quota.", "Ask whoever owns the hub whether its network rules admit this site's address, and whether its quota is used up."},
	{"credential-unproven", LayerCredential, "Nobody could be asked whether the hub takes the credential without disturbing a session: no way of HTTPS gets through to the hub, or the identity has none.", "Nothing, if the device connects; otherwise `fairlead run` and `fairlead status` show what the hub says."},

	{"session-down", LayerRuntime, "The runtime runs, and has no session with the hub.", "Mend what else is found here; it tries again by itself. `fairlead connect` makes it try now, except where a proxy that refused the user, or asked for a wait, must be spared: that one is asked again after the wait, or after a restart."},
	{"runtime-silent", LayerRuntime, "The runtime's socket is there, but it does not answer, or not to this user.", "Run the doctor as the user that runs fairlead. If it is, the runtime hangs: keep its log, and restart it."},

	{"not-provisioned", LayerCredential, "The provisioning service has not assigned the device to a hub yet, so that only the way to the service can be looked at.", "`fairlead run`: it registers the device. If the service refuses, compare id scope, registration id and key with the enrollment."},
	{"route-unusable", LayerConfig, "The route cannot be set up as it is written.", "Mend it at the place that is named."},

	{"dns-not-found", LayerDNS, "The name server says that there is no such name.", "Compare the name with the hub's (`az iot hub show -n HUB --query properties.hostName`). If it is right, this network's name server hides it: ask its administrator, or write `address:` in the route."},
	{"dns-silent", LayerDNS, "The name servers do not answer.", "See what /etc/resolv.conf names (`resolvectl status`), and whether the link is up (`ip -br addr`, `ip route`). Without DNS a proxy, which looks names up itself, or `address:` in the route gets through."},
	{"dns-failed", LayerDNS, "The name cannot be looked up: no name server is set or reached, or it fails itself.", "See what /etc/resolv.conf names (`resolvectl status`), and whether the link is up (`ip -br addr`, `ip route`). Without DNS a proxy, which looks names up itself, or `address:` in the route gets through."},

	{"tcp-refused", LayerTCP, "Something answers that nobody listens there: a firewall that rejects, a wrong port or address, or a hub that is down.", "Ask for {to} to be opened in the firewall; or use a route by port 443 (`use: mqttws`), or a proxy. With `address:` or `port:`, see that they are the hub's."},
	{"tcp-silent", LayerTCP, "No answer at all: a firewall drops the packets, or nothing has that address.", "Ask for outgoing TCP to {to} to be opened in the firewall; or use a route by port 443 (`use: mqttws`), or this site's proxy (`proxy_options:`)."},
	{"tcp-unreachable", LayerTCP, "There is no way to that network.", "See that the link is up and has an address and a default route: `ip -br addr`, `ip route`."},
	{"tcp-failed", LayerTCP, "The connection could not be made for another reason.", "Look at the text; `ip -br addr`, `ip route`, and the limit of open files are worth a look."},

	{"proxy-not-found", LayerProxy, "The proxy's own name cannot be looked up.", "Correct proxy_addr, or write its IP address there."},
	{"proxy-refused", LayerProxy, "Nobody listens at the proxy's address and port.", "Correct proxy_addr and proxy_port ({proxy}); ask the site's administrator whether the proxy runs."},
	{"proxy-silent", LayerProxy, "The proxy does not answer, or does not answer in time.", "Correct proxy_addr and proxy_port ({proxy}); ask the site's administrator whether this device may use the proxy, and whether the proxy reaches {to}."},
	{"proxy-auth-required", LayerProxy, "The proxy wants a user name and a password, or does not take those that it got.", "Set proxy_username and proxy_password; after a changed password, replace its file. Then restart fairlead, which reads them at its start and asks such a proxy ever more rarely. Do not try often: proxies lock accounts."},
	{"proxy-auth-unspoken", LayerProxy, "The proxy wants to know who asks, and only in ways that are not spoken here, such as Negotiate (Kerberos) or Bearer.", "No user name helps. Ask the site's administrator to offer Basic, Digest or NTLM at {proxy}, or to let this device through by its address."},
	{"proxy-busy", LayerProxy, "The proxy asks for less (429).", "Nothing, if it passes: the runtime keeps the wait that the proxy asks for. If it does not, ask the site's administrator for a higher limit for this device, and see that no other program here floods the proxy."},
	{"proxy-forbids", LayerProxy, "The proxy does not let this device go there.", "Ask the site's administrator to allow CONNECT to {to} for this device. Most proxies allow port 443 only: use `use: mqttws` there."},
	{"proxy-hub-unreached", LayerProxy, "The proxy does not reach the hub.", "Ask the site's administrator whether the proxy may go to {to}, and resolves its name."},
	{"proxy-tls-failed", LayerProxy, "TLS to the proxy itself fails.", "See that proxy_type HTTPS is right (a plain proxy is HTTP), that proxy_addr is the name in the proxy's certificate, and name its CA in tls.extra_ca."},
	{"proxy-failed", LayerProxy, "What answers at the proxy's address does not do what a proxy of that type does.", "See that proxy_type and proxy_port are right ({proxy}). A captive portal looks like this, too: log in there."},

	{"tls-silent", LayerTLS, "The connection stands, but nothing answers the TLS handshake, neither a large nor a small one: a firewall that lets connections through and holds their content back.", "Ask the site's administrator whether a firewall inspects TLS to {to}, and have it excepted."},
	{"tls-cut", LayerTLS, "The connection is cut in the TLS handshake: a firewall that looks at the host's name, or something else than the hub listens there.", "Ask the site's administrator whether a firewall blocks TLS to {to}, and have it excepted; see that port and address are the hub's."},
	{"tls-not-tls", LayerTLS, "What answers does not speak TLS: a captive portal, a proxy, another service.", "Log in to the captive portal; or see that port and address are the hub's, and that no proxy has to be named."},
	{"tls-large-hello-stalled", LayerTLS, "Something on the way swallows TLS handshakes whose first flight is larger than one packet, as those with post-quantum keys are. The device gets through with a small one, eight seconds later.", "Have the firewall or proxy updated, or this host excepted; see that the MTU is right and ICMP \"fragmentation needed\" is let through."},
	{"tls-intercepted", LayerTLS, "Somebody on the way opens the encryption: the certificate was issued by {issuer} and not by those that Azure's are from.", "If that is your company's proxy, have {host} excepted from inspection, or name the proxy's CA in tls.extra_ca. If nobody knows it, do not go on: somebody is listening in."},
	{"tls-untrusted", LayerTLS, "The certificate was issued by {issuer}, whom nothing here trusts.", "If that is your hub's or gateway's own CA, name its file in tls.server_verification_cert; if it is your company's proxy, in tls.extra_ca. If nobody knows it, somebody is listening in."},
	{"tls-roots-missing", LayerTLS, "The roots by which servers are known are missing here. Where the system has none at all, those that are built into fairlead are used, and grow old with it.", "Install them: `apt install ca-certificates`, `apk add ca-certificates`; see SSL_CERT_FILE and SSL_CERT_DIR. tls.server_verification_cert replaces all of them: leave it out for Azure."},
	{"tls-wrong-name", LayerTLS, "The certificate is trusted, but is another host's.", "See that the host name is right, and that `address:` leads to the hub and not elsewhere."},
	{"tls-expired", LayerTLS, "The server's certificate has ended, by this machine's clock.", "See that the clock is right. If it is, whoever runs {host} has to renew its certificate."},
	{"tls-not-valid-yet", LayerTLS, "The server's certificate is not valid yet, by this machine's clock.", "Set the clock: `timedatectl set-ntp true`, or `date -u -s '…'`."},
	{"tls-no-common", LayerTLS, "The server and this device have no version or cipher of TLS in common.", "Leave tls.cipher out. A server that speaks TLS 1.0 or 1.1 only is no hub: ask who opens the connection."},
	{"tls-certificate-refused", LayerTLS, "The server refuses the device's certificate in the handshake.", "See that it is the one that the hub knows, with its chain, and has not ended."},
	{"tls-failed", LayerTLS, "The TLS handshake fails for another reason.", "Look at the text, and keep it for whoever helps."},

	{"ws-refused", LayerWebSocket, "TLS stands, and the upgrade to WebSocket is refused.", "A proxy or firewall that inspects HTTPS often does that: have {host} excepted. 403 from the hub itself: its IP filter, or public access is off. Or use `use: mqtt` by port 8883."},
	{"ws-not-found", LayerWebSocket, "TLS stands, and there is no MQTT over WebSocket at this host (404).", "See that the host name is an IoT Hub's, and that port and address are the hub's. A provisioning service in another place, or a web server, answers like this."},
	{"ws-busy", LayerWebSocket, "The hub asks for less, or is busy (429, 503).", "Wait; if it lasts, the hub is too small for its devices."},
	{"ws-silent", LayerWebSocket, "TLS stands, and nothing answers the upgrade to WebSocket.", "A proxy or firewall that inspects HTTPS often does that: have {host} excepted. Or use `use: mqtt` by port 8883."},
	{"ws-failed", LayerWebSocket, "The upgrade to WebSocket fails for another reason.", "A proxy or firewall that inspects HTTPS often does that: have {host} excepted. Or use `use: mqtt` by port 8883."},

	{"https-failed", LayerHTTPS, "TLS stands, and no answer to a request comes, or none that is HTTP.", "A proxy or firewall that inspects HTTPS often does that: have {host} excepted."},
	{"hub-busy", LayerHTTPS, "The hub asks for less, or is busy (429, 503).", "Wait; if it lasts, the hub is too small for its devices."},
	{"hub-failed", LayerHTTPS, "The hub has failed (5xx).", "Wait; see https://azure.status.microsoft, and ask whoever owns the hub."},
}

// facts are what a fix may name.
type facts struct {
	to, host, proxy, issuer, dir string
}

// find makes a finding. A code that is not in the table is a bug of ours.
func find(route, code, detail string, f facts) Check {
	for _, c := range codes {
		if c.Name == code {
			fix := strings.NewReplacer("{to}", f.to, "{host}", f.host, "{proxy}", f.proxy, "{issuer}", f.issuer, "{dir}", f.dir).Replace(c.Fix)
			return Check{Route: route, Layer: c.Layer, Severity: Problem, Code: code, Detail: detail, Fix: fix}
		}
	}
	panic(fmt.Sprintf("doctor: no code %q", code))
}

// Find makes a finding about the device itself that somebody else has made, for Config.Before. It panics on a code that
// does not exist.
func Find(code string, s Severity, detail string) Check {
	c := find("", code, detail, facts{})
	c.Severity = s
	return c
}
