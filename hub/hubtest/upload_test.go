package hubtest_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

// A test of uploads: a device asks for an address, writes there, and reports it.
func ExampleHub_WaitUpload() {
	t := &exampleT{} // in a test, t is its *testing.T
	defer t.end()

	h := hubtest.Start(t)
	token, err := hub.DeviceToken(h.AddDevice("dev1"), time.Hour)
	if err != nil {
		t.Fatalf("token: %v", err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: h.CAPool(), MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	send := func(method, address, body string) *http.Response {
		req, err := http.NewRequest(method, address, strings.NewReader(body))
		if err != nil {
			t.Fatalf("make request: %v", err)
		}
		req.Header.Set("Authorization", token)
		req.Header.Set("x-ms-blob-type", "BlockBlob")
		resp, err := transport.RoundTrip(req)
		if err != nil || resp.StatusCode/100 != 2 {
			t.Fatalf("%s: %v, %v", method, resp, err)
		}
		return resp
	}
	files := fmt.Sprintf("https://127.0.0.1:%d/devices/dev1/files", h.HTTPSPort())
	begun := send("POST", files, `{"blobName":"logs/today.txt"}`)
	defer begun.Body.Close()
	var a api.UploadAddress
	if err := json.NewDecoder(begun.Body).Decode(&a); err != nil {
		t.Fatalf("read address: %v", err)
	}
	_ = send("PUT", "https://"+a.HostName+"/"+a.ContainerName+"/"+a.BlobName+a.SASToken, "all is well").Body.Close()
	_ = send("POST", files+"/notifications", `{"correlationId":"`+a.CorrelationID+`","isSuccess":true}`).Body.Close()

	n := h.WaitUpload("dev1", nil)
	fmt.Println(n.BlobName, n.BlobSizeInBytes, string(h.ReadFile("dev1", "logs/today.txt")))
	// Output: dev1/logs/today.txt 11 all is well
}
