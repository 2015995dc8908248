package sdk_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/plugins/sdk"
	"github.com/fairlead-iot/fairlead/plugins/sdk/sdktest"
)

// uploadingDevice starts a plugin whose loop hands over its device.
func uploadingDevice(t *testing.T, cfg sdktest.Config) *sdk.Device {
	t.Helper()
	devs := make(chan *sdk.Device, 1)
	p := sdk.New("up")
	p.Run(func(ctx context.Context, dev *sdk.Device) error {
		devs <- dev
		<-ctx.Done()
		return nil
	})
	sdktest.Start(t, p, cfg)
	return <-devs
}

func TestFilesAndStreamsAreUploadedByTheHost(t *testing.T) {
	files := &sdktest.Files{}
	dev := uploadingDevice(t, sdktest.Config{Files: files})
	content := bytes.Repeat([]byte("0123456789"), 300_000) // six times the credit
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	told := make(chan sdk.UploadProgress, 100)
	if err := dev.Upload(t.Context(), "a/ü", path, func(p sdk.UploadProgress) { told <- p }); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(files.Blob("a/ü"), content) {
		t.Error("the blob is another one")
	}
	for name, r := range map[string]io.Reader{
		"stream": bytes.NewReader(content), "halves": iotest.HalfReader(bytes.NewReader(content)), "end with data": iotest.DataErrReader(bytes.NewReader(content)),
	} {
		if err := dev.UploadFrom(t.Context(), name, r, nil); err != nil || !bytes.Equal(files.Blob(name), content) {
			t.Errorf("%s: %d bytes, %v", name, len(files.Blob(name)), err)
		}
	}
	if err := dev.UploadFrom(t.Context(), "empty", bytes.NewReader(nil), nil); err != nil || len(files.Names()) != 5 {
		t.Errorf("nothing at all: %v, blobs %v", err, files.Names())
	}
	broken := errors.New("sensor unplugged")
	if err := dev.UploadFrom(t.Context(), "broken", io.MultiReader(bytes.NewReader(content), iotest.ErrReader(broken)), nil); !errors.Is(err, broken) || files.Blob("broken") != nil {
		t.Errorf("a reader that fails: %v", err)
	}
	info, err := dev.StorageInfo(t.Context(), "b")
	if err != nil || info.BlobName != "device-1/b" || info.SASToken != "?sv=2024&sig=test" {
		t.Errorf("storage info %+v, %v", info, err)
	}
	if err := dev.NotifyUpload(t.Context(), sdk.UploadResult{CorrelationID: info.CorrelationID, Success: true, StatusCode: 201, Description: "ok"}); err != nil {
		t.Fatal(err)
	}
	if got := files.Outcomes(); len(got) != 1 || got[0] != (core.UploadOutcome{CorrelationID: info.CorrelationID, Success: true, StatusCode: 201, Description: "ok"}) {
		t.Errorf("outcomes %+v", got)
	}
}

func TestTheProgressOfAnUploadIsTold(t *testing.T) {
	hold := make(chan struct{})
	dev := uploadingDevice(t, sdktest.Config{Files: &sdktest.Files{Hold: hold}})
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("123"), 0o600); err != nil {
		t.Fatal(err)
	}
	told := make(chan sdk.UploadProgress, 2)
	ended := make(chan error, 1)
	go func() { ended <- dev.Upload(t.Context(), "b", path, func(p sdk.UploadProgress) { told <- p }) }()
	if p := <-told; p.State != core.UploadRunning || p.Size != 3 || p.Sent != 0 || p.ID != "upload-b" {
		t.Errorf("progress %+v", p)
	}
	close(hold)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	// # whoever does not wait any more is told so at once
	ctx, cancel := context.WithCancel(t.Context())
	endless, w := io.Pipe()
	defer w.Close()
	go func() { ended <- dev.UploadFrom(ctx, "never", endless, nil) }()
	if _, err := w.Write([]byte("some")); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("called off: %v", err)
	}
}
