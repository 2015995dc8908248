package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/core"
)

// loadText loads a configuration from a file in a directory of the test's own.
func loadText(t *testing.T, text string) *config.Config {
	t.Helper()
	name := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(name, config.Options{Environ: []string{"HOME=/home/dev"}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTheKeyInPartsMayBeAModules(t *testing.T) {
	t.Parallel()
	c := loadText(t, "device: {symmetric_key: {hostname: hub.test, device_id: gw-1, module_id: m, key: c2VjcmV0}}\n")
	id, source, err := credential(c, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if want := (core.Identity{Hostname: "hub.test", DeviceID: "gw-1", ModuleID: "m"}); id != want {
		t.Errorf("identity %+v, want %+v", id, want)
	}
	if _, err := source.Credential(t.Context()); err != nil {
		t.Error(err)
	}
}

// certificateFile writes a certificate of that common name and its key into one file.
func certificateFile(t *testing.T, commonName string, end time.Time) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: commonName}, NotBefore: end.Add(-time.Hour), NotAfter: end}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
	name := filepath.Join(t.TempDir(), "cert.pem")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestCheckDoubtsWhatWillProbablyBeRefused(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	good, over := certificateFile(t, "gw-1", now.Add(time.Minute)), certificateFile(t, "gw-1", now.Add(-time.Minute))
	provisioned := func(registration, file string) string {
		return fmt.Sprintf("provisioning: {id_scope: 0ne1, registration_id: %s, x509: {cert_file: %s, key_file: %s}}", registration, file, file)
	}
	edge := map[string]string{
		"IOTEDGE_IOTHUBHOSTNAME": "hub.test", "IOTEDGE_DEVICEID": "d", "IOTEDGE_MODULEID": "m", "IOTEDGE_GATEWAYHOSTNAME": "edge.test",
		"IOTEDGE_MODULEGENERATIONID": "1", "IOTEDGE_WORKLOADURI": "unix:///run/w.sock",
	}
	for _, tt := range []struct {
		name, device string
		env          map[string]string
		want         []string // parts of each line
	}{
		{"a registration of the certificate's name", provisioned("gw-1", good), nil, nil},
		{"in other letters", provisioned("GW-1", good), nil, nil},
		{
			"a registration of another name", provisioned("gw-2", good), nil,
			[]string{`device.provisioning.registration_id: "gw-2" is not the certificate's common name ("gw-1"): the provisioning service takes`},
		},
		{
			"and a certificate that is over", provisioned("gw-2", over), nil,
			[]string{"device.provisioning.x509.cert_file: the device's certificate ended at 2026-05-01T11:59:00Z", "device.provisioning.registration_id: "},
		},
		{"a module of IoT Edge", "edge_environment: true", edge, nil},
		{
			"one that IoT Edge does not start", "edge_environment: true", nil,
			[]string{"device.edge_environment: read the IoT Edge environment: this process was not started by the IoT Edge runtime: IOTEDGE_IOTHUBHOSTNAME, "},
		},
		{
			"one that lacks a variable", "edge_environment: true",
			map[string]string{"IOTEDGE_DEVICEID": "d"},
			[]string{"device.edge_environment: read the IoT Edge environment: IOTEDGE_IOTHUBHOSTNAME, "},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := doubts(loadText(t, "device: {"+tt.device+"}\n"), now, func(name string) string { return tt.env[name] })
			if len(got) != len(tt.want) {
				t.Fatalf("doubts %v, want %q", got, tt.want)
			}
			for i, want := range tt.want {
				if line := got[i].String(); !strings.Contains(line, want) || strings.HasSuffix(line, ": invalid") {
					t.Errorf("doubt %q, want %q in it, and no sentinel at its end", line, want)
				}
			}
		})
	}
}
