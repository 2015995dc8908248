package mqttfront

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"time"

	"github.com/fairlead-iot/fairlead/hub/internal/iot"
)

// authenticate wants a token as the password, or none and a client certificate:
// "leave the password empty and use the certificate".
// https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub
func (c *conn) authenticate(password []byte) (iot.Credential, error) {
	if chain := clientChain(c.nc); len(password) == 0 && len(chain) > 0 {
		return c.f.svc.AuthenticateCertificate(c.id, chain, time.Now())
	}
	return c.f.svc.AuthenticateDevice(c.id, string(password), time.Now())
}

// clientChain is what the client showed in the TLS handshake, nil for nothing.
func clientChain(nc net.Conn) []*x509.Certificate {
	switch c := nc.(type) {
	case *tls.Conn:
		return c.ConnectionState().PeerCertificates
	case *wsConn:
		return c.chain
	default:
		return nil
	}
}
