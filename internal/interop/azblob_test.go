//go:build interop

package interop_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

// goDevice uploads with Azure's storage client for Go.
type goDevice struct {
	t      *testing.T
	h      *hubtest.Hub
	token  string
	client *http.Client
}

func newGoDevice(t *testing.T, h *hubtest.Hub) *goDevice {
	t.Helper()
	token, err := hub.DeviceToken(h.AddDevice("go"), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: h.CAPool(), MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	return &goDevice{t, h, token, &http.Client{Transport: transport}}
}

// post asks the hub as a device does.
func (d *goDevice) post(path string, body any) []byte {
	d.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		d.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodPost, "https://"+d.h.HTTPSAddr().String()+"/devices/go"+path, bytes.NewReader(text))
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header.Set("Authorization", d.token)
	resp, err := d.client.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 != 2 {
		d.t.Fatalf("POST %s: %d %s, %v", path, resp.StatusCode, answer, err)
	}
	return answer
}

func (d *goDevice) begin(name string) (*blockblob.Client, api.UploadAddress) {
	d.t.Helper()
	var a api.UploadAddress
	if err := json.Unmarshal(d.post("/files", map[string]string{"blobName": name}), &a); err != nil {
		d.t.Fatal(err)
	}
	address := "https://" + a.HostName + (&url.URL{Path: "/" + a.ContainerName + "/" + a.BlobName}).EscapedPath() + a.SASToken
	c, err := blockblob.NewClientWithNoCredential(address, &blockblob.ClientOptions{ClientOptions: azcore.ClientOptions{
		Transport: d.client, Retry: policy.RetryOptions{MaxRetries: 3, RetryDelay: time.Millisecond, MaxRetryDelay: time.Millisecond},
	}})
	if err != nil {
		d.t.Fatal(err)
	}
	return c, a
}

func (d *goDevice) complete(a api.UploadAddress) {
	d.t.Helper()
	d.post("/files/notifications", api.UploadCompletion{CorrelationID: a.CorrelationID, IsSuccess: true, StatusCode: 201})
}

func contentOf(size int) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(data) // never fails, by its contract
	return data
}

func TestAzuresStorageClientForGo(t *testing.T) {
	h := hubtest.Start(t, hubtest.WithDir(t.TempDir()))
	d := newGoDevice(t, h)
	ctx := t.Context()
	const block = 4 << 20
	for i, name := range []string{"plain", "a b/c+d%20&=?#.txt", "ü/日本/😀", "dots/../and//slashes", strings.Repeat("x", 1021)} {
		for j, size := range []int{0, 1, block - 1, block, block + 1, 5*block + 7}[i:] {
			content := contentOf(size)
			c, a := d.begin(name)
			if _, err := c.UploadStream(ctx, bytes.NewReader(content), &blockblob.UploadStreamOptions{BlockSize: block, Concurrency: 3}); err != nil {
				t.Fatalf("%q of %d bytes: %v", name, size, err)
			}
			d.complete(a)
			got, err := c.DownloadStream(ctx, nil)
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(got.Body)
			if err != nil || !bytes.Equal(data, content) || !bytes.Equal(h.ReadFile("go", name), content) {
				t.Errorf("%q of %d bytes: another content of %d bytes was read, %v", name, size, len(data), err)
			}
			all := h.FileNotifications("go")
			if n := all[len(all)-1]; n.BlobName != "go/"+name || n.BlobSizeInBytes != int64(size) {
				t.Errorf("notification %d: %+v", j, n)
			}
		}
	}
}

func TestAzuresStorageClientForGoInDetail(t *testing.T) {
	h := hubtest.Start(t)
	d := newGoDevice(t, h)
	ctx := t.Context()
	c, a := d.begin("b")
	content := contentOf(1000)
	body := func(data []byte) io.ReadSeekCloser { return nopCloser{bytes.NewReader(data)} }
	id := func(n int) string { return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%06d", n)) }

	// # checksums that the client makes, of both kinds, and wrong ones
	sum := md5.Sum(content)
	if _, err := c.StageBlock(ctx, id(1), body(content), &blockblob.StageBlockOptions{TransactionalValidation: blob.TransferValidationTypeComputeCRC64()}); err != nil {
		t.Errorf("a CRC-64 that fits: %v", err)
	}
	if _, err := c.StageBlock(ctx, id(2), body(content), &blockblob.StageBlockOptions{TransactionalValidation: blob.TransferValidationTypeMD5(sum[:])}); err != nil {
		t.Errorf("an MD5 that fits: %v", err)
	}
	_, err := c.StageBlock(ctx, id(3), body(content), &blockblob.StageBlockOptions{TransactionalValidation: blob.TransferValidationTypeCRC64(1)})
	wantBlobError(t, err, bloberror.Code("Crc64Mismatch"))
	_, err = c.StageBlock(ctx, id(3), body(content[1:]), &blockblob.StageBlockOptions{TransactionalValidation: blob.TransferValidationTypeMD5(sum[:])})
	wantBlobError(t, err, bloberror.MD5Mismatch)

	// # lists
	_, err = c.CommitBlockList(ctx, []string{id(1), id(3)}, nil)
	wantBlobError(t, err, bloberror.InvalidBlockList)
	value := "celsius"
	contentType := "text/x-test"
	if _, err := c.CommitBlockList(ctx, []string{id(1), id(2)}, &blockblob.CommitBlockListOptions{
		Metadata: map[string]*string{"unit": &value}, HTTPHeaders: &blob.HTTPHeaders{BlobContentType: &contentType},
	}); err != nil {
		t.Fatal(err)
	}
	list, err := c.GetBlockList(ctx, blockblob.BlockListTypeAll, nil)
	if err != nil || len(list.CommittedBlocks) != 2 || *list.CommittedBlocks[1].Name != id(2) || *list.CommittedBlocks[1].Size != 1000 || *list.BlobContentLength != 2000 {
		t.Errorf("block list %+v, %v", list.BlockList, err)
	}
	p, err := c.GetProperties(ctx, nil)
	if err != nil || *p.ContentLength != 2000 || *p.ContentType != contentType || *p.Metadata["Unit"] != value || *p.BlobType != blob.BlobTypeBlockBlob {
		t.Errorf("properties %+v, %v", p, err)
	}

	// # ranges, by two requests at a time
	buffer := make([]byte, 1500)
	if n, err := c.DownloadBuffer(ctx, buffer, &blob.DownloadBufferOptions{Range: blob.HTTPRange{Offset: 250, Count: 1500}, BlockSize: 400, Concurrency: 2}); err != nil || n != 1500 ||
		!bytes.Equal(buffer, append(bytes.Clone(content[250:]), content[:750]...)) {
		t.Errorf("a range of %d bytes, %v", n, err)
	}
	_, err = c.DownloadStream(ctx, &blob.DownloadStreamOptions{Range: blob.HTTPRange{Offset: 2000, Count: 1}})
	wantBlobError(t, err, bloberror.InvalidRange)

	// # what the address does not grant
	_, err = c.Delete(ctx, nil)
	wantBlobError(t, err, bloberror.AuthorizationPermissionMismatch)
	star := azcore.ETagAny
	_, err = c.Upload(ctx, body(content), &blockblob.UploadOptions{AccessConditions: &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfNoneMatch: &star}}})
	wantBlobError(t, err, bloberror.BlobAlreadyExists)

	// # a storage that fails and is slow: the client tries again
	h.Fault(api.Fault{Name: api.FaultStorageStatus, Device: "go", Code: 500, Count: 2})
	h.Fault(api.Fault{Name: api.FaultStorageDelay, Device: "go", Delay: api.Duration(10 * time.Millisecond), Count: 1})
	if _, err := c.Upload(ctx, body([]byte("after all")), nil); err != nil {
		t.Errorf("a storage that fails twice: %v", err)
	}
	d.complete(a)
	if text := string(h.ReadFile("go", "b")); text != "after all" || len(h.Faults()) != 0 {
		t.Errorf("the file holds %q, faults left %v", text, h.Faults())
	}
}

// More than fits into any buffer on the way.
func TestALargeFileFromAzuresStorageClientForGo(t *testing.T) {
	h := hubtest.Start(t, hubtest.WithDir(t.TempDir()))
	d := newGoDevice(t, h)
	c, a := d.begin("large")
	const size = 256 << 20
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if _, err := c.UploadStream(ctx, io.LimitReader(rand.NewChaCha8([32]byte{3}), size), &blockblob.UploadStreamOptions{BlockSize: 8 << 20, Concurrency: 2}); err != nil {
		t.Fatal(err)
	}
	d.complete(a)
	n := h.WaitUpload("go", nil)
	in, f, err := h.OpenFile(ctx, "go", "large")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	same, err := sameContent(in, io.LimitReader(rand.NewChaCha8([32]byte{3}), size))
	if err != nil || !same || f.Size != size || n.BlobSizeInBytes != size {
		t.Errorf("the hub has %d bytes, the same: %v, %v", f.Size, same, err)
	}
}

func sameContent(a, b io.Reader) (bool, error) {
	one, two := make([]byte, 1<<16), make([]byte, 1<<16)
	for {
		n, err := io.ReadFull(a, one)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return false, err
		}
		m, other := io.ReadFull(b, two)
		if !bytes.Equal(one[:n], two[:m]) {
			return false, nil
		}
		if err != nil || other != nil {
			return errors.Is(other, err), nil
		}
	}
}

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }

func wantBlobError(t *testing.T, err error, code bloberror.Code) {
	t.Helper()
	if !bloberror.HasCode(err, code) {
		t.Errorf("error %v, want %s", err, code)
	}
}
