package hub

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/fairlead-iot/fairlead/hub/internal/iot"
	"github.com/fairlead-iot/fairlead/hub/internal/lobby"
	"github.com/fairlead-iot/fairlead/hub/internal/mqttfront"
)

// connKey is where a request's context has the connection.
type connKey struct{}

func withConn(ctx context.Context, nc net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, nc)
}

// greeted takes a connection out of the lobby when the header of a request is
// there: what follows is either authorized, or refused at once. A WebSocket stays
// until its CONNECT, which the MQTT front sees.
func greeted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if nc, ok := r.Context().Value(connKey{}).(net.Conn); ok && r.URL.Path != mqttfront.WebSocketPath {
			lobby.Leave(nc)
		}
		next.ServeHTTP(w, r)
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(iot.RefusedWithin)) // a WebSocket is over: it needs none
	})
}
