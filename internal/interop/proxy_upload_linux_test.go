//go:build interop && linux

package interop_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

// accountName is the storage account behind the hub, which is the hub's own blob endpoint. The site knows the name no more
// than that of the hub.
const accountName = "plant.blob.core.windows.net"

// uploadSize makes two blocks, in bytes.
const uploadSize = 4<<20 + 17

// wantUploaded uploads a file, which asks the hub for an address, sends blocks to the storage and tells the hub, and wants
// the very bytes there.
func (d *fieldDevice) wantUploaded(h *hubtest.Hub, id, name string) {
	d.t.Helper()
	want := make([]byte, uploadSize)
	_, _ = rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%-32.32s", name)))).Read(want) // it never fails
	file := writeFile(d.t, d.path("a file"), string(want), 0o600)
	until(d.t, "the runtime answers", func() bool { return d.status().Connection.State != "" })
	name = "through/" + name
	if stdout, stderr, code := d.do("upload", file, "--name", name, "--wait"); code != 0 || !strings.Contains(stdout, name+" is there, 4.0 MiB in ") {
		d.t.Fatalf("upload: exit code %d\n%s%s", code, stdout, stderr)
	}
	n := h.WaitUpload(id, func(n api.FileNotification) bool { return n.BlobName == id+"/"+name })
	if n.BlobSizeInBytes != uploadSize || !strings.HasPrefix(n.BlobURI, "https://"+accountName+"/") {
		d.t.Errorf("notification %+v", n)
	}
	if !bytes.Equal(h.ReadFile(id, name), want) {
		d.t.Error("the hub has other bytes")
	}
}

// wantUploadRefused wants an upload to wait, and to say why in every place: whoever waits for it, the state, the log. Then
// it is called off.
func (d *fieldDevice) wantUploadRefused(want, kind string) {
	d.t.Helper()
	file := writeFile(d.t, d.path("a file"), "a file", 0o600)
	until(d.t, "the runtime answers", func() bool { return d.status().Connection.State != "" })
	follower := exec.CommandContext(d.t.Context(), os.Getenv(builtProgram), "upload", file, "--wait", "-c", d.path("fairlead.yaml"))
	var stdout, stderr safeBuffer
	follower.Stdout, follower.Stderr = &stdout, &stderr
	if err := follower.Start(); err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = follower.Process.Kill() }() // unless it has ended
	id := ""
	until(d.t, "the upload tells "+want, func() bool {
		for _, u := range d.status().Uploads {
			if u.State == "waiting" && strings.Contains(u.Reason, want) {
				id = u.ID
			}
		}
		return id != ""
	})
	until(d.t, "whoever waits is told "+want, func() bool {
		return strings.Contains(stderr.String(), "waiting 0 % of 6 B: ") && strings.Contains(stderr.String(), want)
	})
	if !strings.Contains(d.log.String(), "kind="+kind) {
		d.t.Errorf("the failure is not of kind %s", kind)
	}
	d.wantNoSecret("upload --wait", stderr.String())
	d.wantNoSecret("events", d.must("events"))
	d.must("upload", "--cancel", id)
	_ = follower.Wait() // its exit code tells
	if code := follower.ProcessState.ExitCode(); code != 1 || !strings.HasSuffix(stderr.String(), "upload "+id+" cancelled: cancelled by the operator\n") || stdout.String() != "" {
		d.t.Errorf("upload --wait: exit code %d, want 1\n%s%s", code, stdout.String(), stderr.String())
	}
}
