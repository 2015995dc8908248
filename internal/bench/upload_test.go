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
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"

	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/internal/bench/figure"
)

// uploadSize is the file's, in bytes: what a hub in memory holds twice.
const uploadSize = 96 << 20

// uploader is one of those that are compared.
type uploader struct {
	name   string
	upload func() error
	rates  []float64 // MiB/s
}

// TestUploadFigures measures our uploads beside Azure's storage client by itself, which cannot go on after a restart: the
// same file and hub, in turns, over TLS. As it comes it sends the file as one request, in writes of 4 KiB, and checks
// nothing. Helped, it sends as many blocks at once as ours, in the same writes; once it has the storage check each block, as
// ours does.
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
	client := func(writes int) *http.Client {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: 4, WriteBufferSize: writes}
		t.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr}
	}
	asItComes, helped := client(0), client(64<<10)

	peer := func(hc *http.Client, send func(*blockblob.Client, *os.File) error) error {
		info, err := c.GetStorageInfoForBlob(t.Context(), "blob")
		if err != nil {
			return err
		}
		address := "https://" + info.HostName + (&url.URL{Path: "/" + info.ContainerName + "/" + info.BlobName}).EscapedPath() + info.SASToken.Reveal()
		b, err := blockblob.NewClientWithNoCredential(address, &blockblob.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: hc}})
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := send(b, f); err != nil {
			return err
		}
		return c.NotifyBlobUploadStatus(t.Context(), info.CorrelationID, true, 201, "")
	}
	inBlocks := func(check blob.TransferValidationType) func() error {
		return func() error {
			return peer(helped, func(b *blockblob.Client, f *os.File) error {
				_, err := b.UploadStream(t.Context(), f, &blockblob.UploadStreamOptions{BlockSize: 4 << 20, Concurrency: 4, TransactionalValidation: check})
				return err
			})
		}
	}
	ours := &uploader{name: "ours", upload: func() error { return c.UploadFile(t.Context(), "blob", path, nil) }}
	bare := &uploader{name: "azblob as it comes", upload: func() error {
		return peer(asItComes, func(b *blockblob.Client, f *os.File) error {
			_, err := b.UploadFile(t.Context(), f, &blockblob.UploadFileOptions{BlockSize: 4 << 20, Concurrency: 4})
			return err
		})
	}}
	checked := &uploader{name: "azblob helped, checked", upload: inBlocks(blob.TransferValidationTypeComputeCRC64())}
	all := []*uploader{ours, bare, checked, {name: "azblob helped, unchecked", upload: inBlocks(nil)}}
	for round := range *rounds + 1 {
		for turn := range all {
			u := all[(round+turn)%len(all)]
			began := time.Now()
			if err := u.upload(); err != nil {
				t.Fatalf("%s: %v", u.name, err)
			}
			if round > 0 { // the first is for warming up
				u.rates = append(u.rates, uploadSize/time.Since(began).Seconds()/(1<<20))
			}
		}
	}
	fmt.Printf("%s, %d CPUs, %d rounds, load average %s, a file of %d MiB\n", runtime.Version(), runtime.NumCPU(), *rounds, figure.LoadAverage(), uploadSize>>20)
	for _, u := range all {
		fmt.Printf("%s: %.0f MiB/s, of which ours is %.2f\n", u.name, figure.Median(u.rates), figure.Median(ours.rates)/figure.Median(u.rates))
	}
	for _, u := range []*uploader{bare, checked} {
		if ratio := figure.Median(ours.rates) / figure.Median(u.rates); ratio < 0.9 {
			t.Errorf("our uploads have %.2f of the rate of %s, want at least 0.9", ratio, u.name)
		}
	}
}
