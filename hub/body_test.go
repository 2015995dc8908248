package hub_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

// dialHTTPS connects as no client of ours does: what is written is the request.
func dialHTTPS(t *testing.T, h *hubtest.Hub) *tls.Conn {
	t.Helper()
	nc, err := h.DialContext(t.Context(), "tcp", "localhost:443")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() }) // it may be closed already
	return tls.Client(nc, &tls.Config{RootCAs: h.CAPool(), ServerName: "localhost", MinVersion: tls.VersionTLS12})
}

// Clients that stop in the middle of a body are given up: soon after a refusal, which needs none of the body, and otherwise
// after a minute.
func TestBodiesThatStallAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.StartPipe(t)
		d := newUploader(t, h, "dev1")
		const soon = 5 * time.Second // what is left of a refused request may take
		for name, tt := range map[string]struct {
			request, status string
			after           time.Duration
		}{
			"a stranger":            {"POST /devices/dev1/messages/events HTTP/1.1\r\nContent-Length: 100\r\n", "401 Unauthorized", soon},
			"in chunks":             {"POST /devices/dev1/messages/events HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", "401 Unauthorized", soon},
			"at no route":           {"POST /nowhere HTTP/1.1\r\nContent-Length: 100\r\n", "404 Not Found", soon},
			"where none is wanted":  {"GET /devices/dev1 HTTP/1.1\r\nContent-Length: 100\r\n", "401 Unauthorized", soon},
			"a device":              {"POST /devices/dev1/messages/events HTTP/1.1\r\nAuthorization: " + d.token + "\r\nContent-Length: 100\r\n", "400 Bad Request", time.Minute + soon},
			"a device to provision": {"PUT /0ne/registrations/dev1/register HTTP/1.1\r\nContent-Length: 100\r\n", "400 Bad Request", time.Minute + soon},
			"a service's":           {"PUT /enrollments/dev1 HTTP/1.1\r\nContent-Length: 100\r\n", "401 Unauthorized", soon},
		} {
			c := dialHTTPS(t, h)
			began := time.Now()
			if _, err := io.WriteString(c, tt.request+"Host: localhost\r\n\r\nhalf"); err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(c) // to the end of the connection
			if took := time.Since(began); !strings.HasPrefix(string(answer), "HTTP/1.1 "+tt.status) || took < tt.after || took > tt.after+2*time.Second {
				t.Errorf("%s: after %v: %.60q, %v; want %s after %v", name, took, answer, err, tt.status, tt.after)
			}
		}
	})
}

// The limit is for the body alone: what it asks for may last, on a connection that serves others afterwards.
func TestWhatABodyAsksForMayLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.StartPipe(t)
		h.AddDevice("dev1")
		text, err := h.ServiceConnectionString("service")
		if err != nil {
			t.Fatal(err)
		}
		token := policyToken(t, "localhost", text)
		c := dialHTTPS(t, h)
		answers := bufio.NewReader(c)
		const call = `{"methodName":"ping","connectTimeoutInSeconds":200}`
		for range 2 {
			began := time.Now()
			if _, err := fmt.Fprintf(c, "POST /twins/dev1/methods HTTP/1.1\r\nHost: localhost\r\nAuthorization: %s\r\nContent-Length: %d\r\n\r\n%s", token, len(call), call[:20]); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Second) // slow, and not stalled
			if _, err := io.WriteString(c, call[20:]); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if took := time.Since(began); resp.StatusCode != 404 || !strings.Contains(string(body), fmt.Sprint(api.CodeNotOnline)) || took != 250*time.Second {
				t.Errorf("after %v: %s %s, %v", took, resp.Status, body, err)
			}
			time.Sleep(90 * time.Second) // more than the limit, less than an idle connection has
		}
	})
}
