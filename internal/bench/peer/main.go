// Command peer is what the benchmarks stand beside: stock paho in one process, without a runtime. It sends what the
// benchmark orders, and answers every direct method with its payload.
//
// paho stays as it comes: only what the hub asks for (names, password, TLS) and the same session flags are set.
//
//	peer SOCKET ADDRESS CA-FILE CONNECTION-STRING-FILE
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/internal/bench/load"
)

// IoT Hub's topics: https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub
const (
	methodPrefix = "$iothub/methods/POST/"
	methodAnswer = "$iothub/methods/res/200/?$rid="
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: peer SOCKET ADDRESS CA-FILE CONNECTION-STRING-FILE")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, socket, address, caFile, csFile string) error {
	o, topic, err := options(ctx, address, caFile, csFile)
	if err != nil {
		return err
	}
	c := paho.NewClient(o)
	if t := c.Connect(); t.Wait() && t.Error() != nil {
		return fmt.Errorf("connect: %w", t.Error())
	}
	defer c.Disconnect(100)
	t := c.Subscribe(methodPrefix+"#", 1, func(c paho.Client, m paho.Message) {
		if _, rid, ok := strings.Cut(m.Topic(), "/?$rid="); ok {
			c.Publish(methodAnswer+rid, 1, false, m.Payload())
		}
	})
	if t.Wait() && t.Error() != nil {
		return fmt.Errorf("subscribe: %w", t.Error())
	}
	// Tokens end in the order of publishing: one goroutine waits for them, as an author would write it.
	type sent struct {
		token paho.Token
		done  func(error)
	}
	tokens := make(chan sent, 4096) // more than any window
	go func() {
		for s := range tokens {
			s.token.Wait()
			s.done(s.token.Error())
		}
	}()
	return load.Serve(ctx, socket, load.Sender{Send: func(_ context.Context, m *load.Message, done func(error)) error {
		tokens <- sent{c.Publish(topic(m), 1, false, m.Payload), done}
		return nil
	}})
}

// options returns paho's options, and the topic of a message: the one that the runtime uses, system properties first.
func options(ctx context.Context, address, caFile, csFile string) (*paho.ClientOptions, func(*load.Message) string, error) {
	ca, err := os.ReadFile(caFile) //nolint:gosec // the benchmark names it
	if err != nil {
		return nil, nil, fmt.Errorf("read CA: %w", err)
	}
	text, err := os.ReadFile(csFile) //nolint:gosec // the same
	if err != nil {
		return nil, nil, fmt.Errorf("read connection string: %w", err)
	}
	cs, err := credentials.ParseConnectionString(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, nil, err
	}
	source, err := credentials.NewSharedKey(cs.Identity, cs.Key, time.Hour, time.Now)
	if err != nil {
		return nil, nil, err
	}
	credential, err := source.Credential(ctx)
	if err != nil {
		return nil, nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	o := paho.NewClientOptions().AddBroker("ssl://" + address).
		SetTLSConfig(&tls.Config{RootCAs: roots, ServerName: cs.Identity.Hostname, MinVersion: tls.VersionTLS12}).
		SetClientID(cs.Identity.DeviceID).
		SetUsername(cs.Identity.Hostname + "/" + cs.Identity.DeviceID + "/?api-version=2021-04-12").
		SetPassword(credential.Token.Reveal()).
		SetCleanSession(false).SetKeepAlive(time.Minute)
	const (
		before = "%24.mid="
		system = "&%24.ct="
	)
	events := "devices/" + cs.Identity.DeviceID + "/messages/events/" + before
	after := system + url.QueryEscape(load.ContentType) + "&%24.ce=" + load.ContentEncoding + "&" + load.PropertyName + "=" + load.PropertyValue
	return o, func(m *load.Message) string { return events + m.ID + after }, nil
}
