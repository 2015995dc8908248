//go:build linux

package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"

	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/internal/bench/figure"
)

// uploadSize is the file's, in bytes: what a hub in memory holds twice.
const uploadSize = 96 << 20

// TestUploadFigures measures our uploads beside Azure's storage client by itself, which neither checks what it sends nor
// can go on after a restart: the same file, hub and number of blocks at once, in turns. TLS is on both ways.
func TestUploadFigures(t *testing.T) {
	if !*figures {
		t.Skip("measures only with -figures: make bench")
	}
	h := startHub(t)
	defer runtime.KeepAlive(h) // its pipe is the process's life
	connectionString := h.do(hubOrder{Add: "up"}).ConnectionString
	ca, err := os.ReadFile(h.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	_, portText, err := net.SplitHostPort(h.HTTPS)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		t.Fatal(err)
	}
	c, err := device.FromConnectionString(connectionString, func(o *device.Options) { o.ExtraCA, o.HTTPSPort = ca, port })
	if err != nil {
		t.Fatal(err)
	}
	defer c.Shutdown(context.WithoutCancel(t.Context())) //nolint:errcheck // nothing was sent
	path := filepath.Join(t.TempDir(), "file")
	content := make([]byte, uploadSize)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content) // never fails, by its contract
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	bare := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: 4,
		WriteBufferSize: 64 << 10, // as ours: Go's 4 KiB say nothing of the client
	}}
	defer bare.CloseIdleConnections()

	ours := func() error { return c.UploadFile(t.Context(), "blob", path, nil) }
	peer := func() error {
		info, err := c.GetStorageInfoForBlob(t.Context(), "blob")
		if err != nil {
			return err
		}
		address := "https://" + info.HostName + (&url.URL{Path: "/" + info.ContainerName + "/" + info.BlobName}).EscapedPath() + info.SASToken.Reveal()
		b, err := blockblob.NewClientWithNoCredential(address, &blockblob.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: bare}})
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		// Not UploadFile, which sends what has less than 256 MiB in one request, whatever its options say.
		if _, err := b.UploadStream(t.Context(), f, &blockblob.UploadStreamOptions{BlockSize: 4 << 20, Concurrency: 4}); err != nil {
			return err
		}
		return c.NotifyBlobUploadStatus(t.Context(), info.CorrelationID, true, 201, "")
	}
	var rates [2][]float64
	for round := range *rounds + 1 {
		for turn := range 2 {
			who := (round + turn) % 2
			began := time.Now()
			if err := []func() error{ours, peer}[who](); err != nil {
				t.Fatal(err)
			}
			if round > 0 { // the first is for warming up
				rates[who] = append(rates[who], uploadSize/time.Since(began).Seconds()/(1<<20))
			}
		}
	}
	ratio := figure.Median(rates[0]) / figure.Median(rates[1])
	fmt.Printf("%s, %d CPUs, %d rounds, load average %s: a file of %d MiB, MiB/s: ours %.0f, azblob %.0f, ratio %.2f\n",
		runtime.Version(), runtime.NumCPU(), *rounds, figure.LoadAverage(), uploadSize>>20, figure.Median(rates[0]), figure.Median(rates[1]), ratio)
	if ratio < 0.9 {
		t.Errorf("our uploads have %.2f of the bare client's rate, want at least 0.9", ratio)
	}
}
