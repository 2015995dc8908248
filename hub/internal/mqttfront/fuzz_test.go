package mqttfront

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/iot"
	"github.com/fairlead-iot/fairlead/hub/internal/mqttwire"
	"github.com/fairlead-iot/fairlead/hub/internal/sas"
)

// The devices of the captures.
var fuzzDevices = []string{"node", "paho"}

// fuzzFront is a front with the devices, and a CONNECT of each that is good. refresh makes a device anew.
func fuzzFront(tb testing.TB) (f *Front, connects [][]byte, refresh func(i int) error) {
	tb.Helper()
	svc, err := iot.Open(iot.Config{Hostnames: []string{"localhost"}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = svc.Close() })
	var devices []api.Device
	for _, id := range fuzzDevices {
		d, err := svc.PutDevice(api.Device{DeviceID: id}, "")
		if err != nil {
			tb.Fatal(err)
		}
		token, err := sas.New("localhost/devices/"+id, "", d.Authentication.SymmetricKey.PrimaryKey, time.Now().Add(24*time.Hour))
		if err != nil {
			tb.Fatal(err)
		}
		p := paho.NewControlPacket(paho.Connect).(*paho.ConnectPacket)
		p.ProtocolName, p.ProtocolVersion, p.ClientIdentifier = "MQTT", 4, id
		p.UsernameFlag, p.Username, p.PasswordFlag, p.Password = true, "localhost/"+id+"/?api-version=2021-04-12", true, []byte(token)
		var out bytes.Buffer
		if err := p.Write(&out); err != nil {
			tb.Fatal(err)
		}
		connects, devices = append(connects, out.Bytes()), append(devices, d)
	}
	refresh = func(i int) error {
		d := devices[i]
		if err := svc.DeleteDevice(d.ID(), "*"); err != nil {
			return err
		}
		_, err := svc.PutDevice(api.Device{DeviceID: d.DeviceID, Authentication: d.Authentication}, "")
		return err
	}
	return New(Config{Service: svc, Logger: slog.New(slog.DiscardHandler)}), connects, refresh
}

// FuzzConnection gives a whole connection any bytes, in pieces of any size, with and without a good CONNECT before them.
// Nothing panics, the connection ends with its bytes, and all that the hub says is MQTT.
func FuzzConnection(f *testing.F) {
	for i, id := range fuzzDevices {
		text, err := os.ReadFile(filepath.Join("..", "mqttwire", "testdata", "captures", id+"-to-hub.bin"))
		if err != nil {
			f.Fatal(err)
		}
		first, err := mqttwire.Frame(text, len(text))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text[first:], byte(i+1), uint16(7))
		f.Add(text, byte(0), uint16(1000))
	}
	f.Add([]byte("\x32\x26\x00\x20$iothub/twin/GET/?$rid=1&$version=\x00\x01"), byte(1), uint16(3))
	f.Add([]byte("\x30\x3b\x00\x37$iothub/twin/PATCH/properties/reported/?$rid=1&$version=2{}"), byte(2), uint16(100))
	f.Add([]byte("\xa2\x27\x00\x02\x00\x23devices/node/messages/devicebound/#\xe0\x00"), byte(1), uint16(100))
	front, connects, refresh := fuzzFront(f)
	f.Fuzz(func(t *testing.T, in []byte, who byte, piece uint16) {
		if len(in) > 64<<10 {
			return // nothing new
		}
		if who %= byte(len(connects) + 1); who > 0 {
			in = append(bytes.Clone(connects[who-1]), in...)
			if err := refresh(int(who - 1)); err != nil { // each input meets the same hub
				t.Fatal(err)
			}
			if err := front.svc.SendC2D(fuzzDevices[who-1], api.C2D{Body: []byte("queued")}); err != nil {
				t.Fatal(err)
			}
		}
		near, far := net.Pipe()
		served, drained := make(chan struct{}), make(chan []byte)
		go func() {
			defer close(served)
			front.serve(far)
		}()
		go func() {
			var all bytes.Buffer
			_, _ = all.ReadFrom(near) // until either side has closed
			drained <- all.Bytes()
		}()
		for rest := in; len(rest) > 0; {
			n := min(int(piece)+1, len(rest))
			if _, err := near.Write(rest[:n]); err != nil {
				break // the hub has had enough
			}
			rest = rest[n:]
		}
		_ = near.Close()
		select {
		case <-served:
		case <-time.After(time.Minute):
			t.Fatalf("the connection does not end after %x", in)
		}
		out := <-drained
		for r := bytes.NewReader(out); r.Len() > 0; {
			if _, err := paho.ReadPacket(r); errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
				break // the end of the connection cut it, or its length
			} else if err != nil {
				t.Fatalf("the hub said %x, which is no MQTT: %v", out, err)
			}
		}
		if who > 0 && len(out) >= 4 && !bytes.HasPrefix(out, []byte{0x20, 2}) {
			t.Errorf("a good CONNECT was answered with %x", out[:4])
		}
	})
}
