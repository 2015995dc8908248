package blob

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/binary"
	"encoding/xml"
	"fmt"
	"hash/crc64"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairlead-iot/fairlead/hub/internal/blobsas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const container = "uploads"

// world is an endpoint over plain HTTP: TLS is the hub's.
type world struct {
	*testing.T
	store   *Store
	server  *httptest.Server
	key     []byte
	trouble Trouble
}

func newWorld(t *testing.T, dir string, hostnames ...string) *world {
	t.Helper()
	w := &world{T: t}
	var err error
	if w.store, err = Open(dir, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	w.key = w.store.key
	w.server = httptest.NewServer(New(Config{
		Store: w.store, Hostnames: hostnames, Strike: func(string) Trouble { return w.trouble }, Logger: slog.New(slog.DiscardHandler),
	}))
	t.Cleanup(w.server.Close)
	return w
}

// query grants on a blob.
func (w *world) query(account, name, permissions string) string {
	return blobsas.Sign(blobsas.Resource{Account: account, Container: container, Blob: name}, blobsas.Grant{Permissions: permissions, Expiry: time.Now().Add(time.Hour)}, w.key)
}

type answer struct {
	status int
	header http.Header
	body   string
}

// do sends a request for a blob with every permission. options are headers
// "Name: value", or further query parameters "name=value".
func (w *world) do(method, name, body string, options ...string) answer {
	w.Helper()
	query := w.query(PathAccount, name, "racwd")
	for _, o := range options {
		if !strings.Contains(o, ": ") {
			query = o + "&" + query
		}
	}
	return w.send(method, "/"+PathAccount+"/"+container+"/"+escape(name)+"?"+query, body, options...)
}

func escape(name string) string { return (&url.URL{Path: name}).EscapedPath() }

func (w *world) send(method, path, body string, options ...string) answer {
	w.Helper()
	req, err := http.NewRequestWithContext(w.Context(), method, w.server.URL+path, strings.NewReader(body))
	if err != nil {
		w.Fatal(err)
	}
	req.Header.Set("x-ms-version", "2024-11-04")
	for _, o := range options {
		if name, value, ok := strings.Cut(o, ": "); ok {
			req.Header.Set(name, value)
		}
		if host, ok := strings.CutPrefix(o, "Host: "); ok {
			req.Host = host
		}
	}
	resp, err := w.server.Client().Do(req)
	if err != nil {
		w.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(text)}
}

func (w *world) want(a answer, status int, code string) answer {
	w.Helper()
	if a.status != status || a.header.Get("x-ms-error-code") != code {
		w.Errorf("answered %d %s, want %d %s\n%s", a.status, a.header.Get("x-ms-error-code"), status, code, a.body)
	}
	return a
}

// put puts a block of an id that is given in the clear.
func (w *world) put(name, id, content string, options ...string) answer {
	w.Helper()
	return w.do("PUT", name, content, append(options, "comp=block", "blockid="+url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(id))))...)
}

// commit commits blocks, each "latest:id", "committed:id" or "uncommitted:id".
func (w *world) commit(name string, blocks []string, options ...string) answer {
	w.Helper()
	var list strings.Builder
	for _, b := range blocks {
		from, id, _ := strings.Cut(b, ":")
		element := strings.ToUpper(from[:1]) + from[1:]
		fmt.Fprintf(&list, "<%s>%s</%[1]s>", element, base64.StdEncoding.EncodeToString([]byte(id)))
	}
	return w.do("PUT", name, xml.Header+"<BlockList>"+list.String()+"</BlockList>", append(options, "comp=blocklist")...)
}

func (w *world) content(name, want string) {
	w.Helper()
	if a := w.want(w.do("GET", name, ""), 200, ""); a.body != want {
		w.Errorf("%s holds %q, want %q", name, a.body, want)
	}
}

// both runs a test on disk and in memory.
func both(t *testing.T, f func(w *world)) {
	t.Run("disk", func(t *testing.T) { f(newWorld(t, t.TempDir())) })
	t.Run("memory", func(t *testing.T) { f(newWorld(t, "")) })
}

func md5Of(text string) string {
	sum := md5.Sum([]byte(text))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// crcOf is Azure's CRC-64 bit by bit, so that a wrong table cannot agree with
// itself.
func crcOf(text string) string {
	crc := ^uint64(0)
	for _, b := range []byte(text) {
		crc ^= uint64(b)
		for range 8 {
			low := crc & 1
			crc >>= 1
			if low == 1 {
				crc ^= 0x9A6C9329AC4BC9B5
			}
		}
	}
	return base64.StdEncoding.EncodeToString(binary.LittleEndian.AppendUint64(nil, ^crc))
}

func TestPutBlobAndRead(t *testing.T) {
	both(t, func(w *world) {
		const text = "hello, blob"
		for _, name := range []string{"dev1/plain.txt", "dev1/a b+c%20.txt", "dev1/ü/日本.bin", "dev1//double/../dots", "dev1/?#&="} {
			w.want(w.do("GET", name, ""), 404, "BlobNotFound")
			w.want(w.do("HEAD", name, ""), 404, "BlobNotFound")
			put := w.want(w.do("PUT", name, text, "x-ms-blob-type: BlockBlob", "Content-Type: text/plain", "x-ms-meta-Unit: celsius", "x-ms-client-request-id: mine"), 201, "")
			if put.header.Get("ETag") == "" || put.header.Get("x-ms-content-crc64") != crcOf(text) || put.header.Get("x-ms-version") != "2024-11-04" ||
				put.header.Get("x-ms-client-request-id") != "mine" || len(put.header.Get("x-ms-request-id")) != 36 {
				w.Errorf("Put Blob answered %v", put.header)
			}
			got := w.want(w.do("GET", name, ""), 200, "")
			head := w.want(w.do("HEAD", name, ""), 200, "")
			for _, h := range []http.Header{got.header, head.header} {
				if h.Get("Content-Type") != "text/plain" || h.Get("Content-Length") != "11" || h.Get("ETag") != put.header.Get("ETag") || h.Get("Last-Modified") != put.header.Get("Last-Modified") ||
					h.Get("Content-MD5") != md5Of(text) || h.Get("x-ms-meta-unit") != "celsius" || h.Get("x-ms-blob-type") != "BlockBlob" {
					w.Errorf("%s: properties %v", name, h)
				}
			}
			if got.body != text || head.body != "" {
				w.Errorf("%s holds %q", name, got.body)
			}
			w.want(w.do("DELETE", name, ""), 202, "")
			w.want(w.do("GET", name, ""), 404, "BlobNotFound")
			w.want(w.do("DELETE", name, ""), 404, "BlobNotFound")
		}
		w.want(w.do("PUT", "empty", "", "x-ms-blob-type: BlockBlob"), 201, "")
		w.content("empty", "")
		if kind := w.do("HEAD", "empty", "").header.Get("Content-Type"); kind != "application/octet-stream" {
			w.Errorf("a blob without a type has the type %q", kind)
		}
	})
}

func TestRanges(t *testing.T) {
	w := newWorld(t, t.TempDir())
	for i, part := range []string{"0123", "4567", "89"} {
		w.want(w.put("b", fmt.Sprint(i), part), 201, "")
	}
	w.want(w.commit("b", []string{"latest:0", "latest:1", "latest:2"}), 201, "")
	for header, want := range map[string]string{
		"bytes=0-": "0123456789", "bytes=2-5": "2345", "bytes=4-7": "4567", "bytes=9-9": "9", "bytes=3-100": "3456789", "bytes=8-": "89",
	} {
		for _, name := range []string{"Range", "x-ms-range"} {
			a := w.want(w.do("GET", "b", "", name+": "+header), 206, "")
			first, _, _ := strings.Cut(strings.TrimPrefix(header, "bytes="), "-")
			if a.body != want || !strings.HasPrefix(a.header.Get("Content-Range"), "bytes "+first+"-") || !strings.HasSuffix(a.header.Get("Content-Range"), "/10") {
				t.Errorf("%s: %s gave %q, %s", name, header, a.body, a.header.Get("Content-Range"))
			}
		}
	}
	for _, bad := range []string{"bytes=10-", "bytes=5-4", "bytes=-3", "bytes=a-", "lines=1-2", "bytes=1", "bytes=99999999999999999999-"} {
		if a := w.want(w.do("GET", "b", "", "Range: "+bad), 416, "InvalidRange"); a.header.Get("Content-Range") != "bytes */10" {
			t.Errorf("%s: Content-Range %q", bad, a.header.Get("Content-Range"))
		}
	}
}

func TestBlockListsChooseBetweenOldAndNew(t *testing.T) {
	both(t, func(w *world) {
		for i, part := range []string{"a1", "b1", "c1"} {
			w.want(w.put("b", string(rune('a'+i)), part), 201, "")
		}
		list := w.want(w.do("GET", "b", "", "comp=blocklist", "blocklisttype=all"), 200, "")
		if want := "<BlockList><CommittedBlocks></CommittedBlocks><UncommittedBlocks>" +
			"<Block><Name>YQ==</Name><Size>2</Size></Block><Block><Name>Yg==</Name><Size>2</Size></Block><Block><Name>Yw==</Name><Size>2</Size></Block>" +
			"</UncommittedBlocks></BlockList>"; list.body != xml.Header+want {
			w.Errorf("block list %s", list.body)
		}
		w.want(w.do("GET", "b", ""), 404, "BlobNotFound")
		w.want(w.commit("b", []string{"committed:a"}), 400, "InvalidBlockList")
		w.want(w.commit("b", []string{"latest:b", "uncommitted:a", "latest:b"}, "x-ms-blob-content-type: text/x"), 201, "")
		w.content("b", "b1a1b1")
		// c was left out: it is gone.
		w.want(w.commit("b", []string{"latest:c"}), 400, "InvalidBlockList")
		w.want(w.put("b", "a", "a2"), 201, "")
		w.content("b", "b1a1b1")
		w.want(w.commit("b", []string{"uncommitted:b"}), 400, "InvalidBlockList")
		w.want(w.commit("b", []string{"committed:a", "latest:a", "latest:b"}), 201, "")
		w.content("b", "a1a2b1")
		list = w.want(w.do("GET", "b", "", "comp=blocklist"), 200, "")
		if strings.Contains(list.body, "UncommittedBlocks") || strings.Count(list.body, "<Name>YQ==</Name>") != 2 || list.header.Get("x-ms-blob-content-length") != "6" {
			w.Errorf("block list %s, %v", list.body, list.header)
		}
		w.want(w.put("b", "a", "a3"), 201, "")
		w.want(w.put("b", "a", "a4"), 201, "") // the last one counts
		w.want(w.commit("b", []string{"latest:a"}), 201, "")
		w.content("b", "a4")
		w.want(w.commit("b", nil), 201, "")
		w.content("b", "")
		w.want(w.do("GET", "none", "", "comp=blocklist"), 404, "BlobNotFound")
	})
}

func TestChecksums(t *testing.T) {
	w := newWorld(t, "")
	const text = "some content"
	a := w.want(w.put("b", "a", text, "Content-MD5: "+md5Of(text)), 201, "")
	if a.header.Get("Content-MD5") != md5Of(text) || a.header.Get("x-ms-content-crc64") != "" {
		t.Errorf("headers %v", a.header)
	}
	a = w.want(w.put("b", "a", text, "x-ms-content-crc64: "+crcOf(text)), 201, "")
	if a.header.Get("x-ms-content-crc64") != crcOf(text) {
		t.Errorf("headers %v", a.header)
	}
	for _, comp := range []string{"comp=block", "comp=blocklist", "x-ms-blob-type: BlockBlob"} {
		body := text
		if comp == "comp=blocklist" {
			body = "<BlockList/>"
		}
		options := func(header string) []string { return []string{comp, "blockid=YQ==", header} }
		a = w.want(w.do("PUT", "b", body, options("Content-MD5: "+md5Of("other"))...), 400, "Md5Mismatch")
		if a.header.Get("Content-MD5") != "" {
			t.Error("a refusal carries the checksum of another body")
		}
		w.want(w.do("PUT", "b", body, options("x-ms-content-crc64: "+crcOf("other"))...), 400, "Crc64Mismatch")
		w.want(w.do("PUT", "b", body, options("Content-MD5: AAAA")...), 400, "InvalidMd5")
		w.want(w.do("PUT", "b", body, options("x-ms-content-crc64: ????")...), 400, "InvalidHeaderValue")
		w.want(w.do("PUT", "b", body, append(options("x-ms-content-crc64: "+crcOf(body)), "Content-MD5: "+md5Of(body))...), 400, "InvalidHeaderValue")
	}
	w.want(w.do("GET", "b", ""), 404, "BlobNotFound")
	if crcOf("123456789") != base64.StdEncoding.EncodeToString(binary.LittleEndian.AppendUint64(nil, crc64.Checksum([]byte("123456789"), crc64.MakeTable(crcPolynomial)))) {
		t.Error("the table is another polynomial's")
	}
}

func TestBadRequestsAreRefusedInAzuresWords(t *testing.T) {
	w := newWorld(t, "")
	long := strings.Repeat("x", maxName+1)
	id := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{'i'}, maxBlockID+1))
	tests := []struct {
		method, name, body string
		options            []string
		status             int
		code               string
	}{
		{"PUT", "b", "x", nil, 400, "MissingRequiredHeader"},
		{"PUT", "b", "x", []string{"x-ms-blob-type: PageBlob"}, 400, "InvalidHeaderValue"},
		{"PUT", "b", "", []string{"x-ms-blob-type: BlockBlob", "x-ms-copy-source: https://elsewhere"}, 400, "UnsupportedHeader"},
		{"PUT", "b", "x", []string{"x-ms-blob-type: BlockBlob", "x-ms-blob-content-md5: x"}, 400, "InvalidMd5"},
		{"PUT", "b", "x", []string{"x-ms-blob-type: BlockBlob", "x-ms-meta-big: " + strings.Repeat("x", maxMetadata)}, 400, "MetadataTooLarge"},
		{"PUT", long, "x", []string{"x-ms-blob-type: BlockBlob"}, 400, "InvalidUri"},
		{"PUT", "b", "x", []string{"comp=block"}, 400, "InvalidBlockId"},
		{"PUT", "b", "x", []string{"comp=block", "blockid=*"}, 400, "InvalidBlockId"},
		{"PUT", "b", "x", []string{"comp=block", "blockid=" + url.QueryEscape(id)}, 400, "InvalidBlockId"},
		{"PUT", "b", "", []string{"comp=block", "blockid=YQ=="}, 400, "InvalidHeaderValue"},
		{"PUT", "b", "x", []string{"comp=lease"}, 400, "InvalidQueryParameterValue"},
		{"GET", "b", "", []string{"comp=blocklist", "blocklisttype=some"}, 400, "InvalidQueryParameterValue"},
		{"GET", "b", "", []string{"snapshot=2020"}, 400, "InvalidQueryParameterValue"},
		{"PATCH", "b", "x", nil, 405, "UnsupportedHttpVerb"},
		{"GET", "b", "", []string{"x-ms-version: newest"}, 400, "InvalidHeaderValue"},
		{"PUT", "b", "<BlockList", []string{"comp=blocklist"}, 400, "InvalidXmlDocument"},
		{"PUT", "b", "", []string{"comp=blocklist"}, 400, "InvalidXmlDocument"},
		{"PUT", "b", "<BlockList><Latest>*</Latest></BlockList>", []string{"comp=blocklist"}, 400, "InvalidBlockId"},
		{"PUT", "b", "<BlockList>" + strings.Repeat("<Latest>YQ==</Latest>", maxBlocks+1) + "</BlockList>", []string{"comp=blocklist"}, 400, "BlockListTooLong"},
		{"PUT", "b", "<BlockList>" + strings.Repeat(" ", maxBlockList) + "</BlockList>", []string{"comp=blocklist"}, 413, "RequestBodyTooLarge"},
		{"PUT", "b", strings.Repeat("x", oldMaxBlock+1), []string{"comp=block", "blockid=YQ==", "x-ms-version: 2015-12-11"}, 413, "RequestBodyTooLarge"},
	}
	for _, tt := range tests {
		a := w.want(w.do(tt.method, tt.name, tt.body, tt.options...), tt.status, tt.code)
		var body struct {
			XMLName       xml.Name `xml:"Error"`
			Code, Message string
		}
		if err := xml.Unmarshal([]byte(a.body), &body); err != nil || body.Code != tt.code || !strings.Contains(body.Message, "\nRequestId:"+a.header.Get("x-ms-request-id")+"\nTime:") {
			t.Errorf("%s: body %s, %v", tt.code, a.body, err)
		}
	}
	w.want(w.send("GET", "/"+PathAccount+"/"+container+"?restype=container&comp=list", ""), 400, "InvalidUri")
	w.want(w.put("b", "aa", "x"), 201, "")
	w.want(w.put("b", "a", "x"), 400, "InvalidBlobOrBlock")

	// A body without a length, as a client that streams sends it.
	req, err := http.NewRequestWithContext(t.Context(), "PUT", w.server.URL+"/"+PathAccount+"/"+container+"/b?"+w.query(PathAccount, "b", "w"), io.MultiReader(strings.NewReader("x")))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("x-ms-blob-type", "BlockBlob")
	resp, err := w.server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 411 {
		t.Errorf("a body without a length was answered %d", resp.StatusCode)
	}
}

func TestSignaturesAreChecked(t *testing.T) {
	w := newWorld(t, "", "Acme.blob.core.windows.net", "myhub.azure-devices.net")
	put := []string{"x-ms-blob-type: BlockBlob"}
	path := func(account, container, name, query string) string {
		return "/" + account + "/" + container + "/" + name + "?" + query
	}
	w.want(w.send("PUT", path(PathAccount, container, "b", ""), "x", put...), 401, "NoAuthenticationInformation")
	w.want(w.send("PUT", path(PathAccount, container, "b", ""), "x", append(put, "Authorization: SharedKey a:b")...), 403, "AuthenticationFailed")
	good := w.query(PathAccount, "b", "rw")
	w.want(w.send("PUT", path(PathAccount, container, "b", good), "x", put...), 201, "")
	w.want(w.send("PUT", path(PathAccount, container, "other", good), "x", put...), 403, "AuthenticationFailed")
	w.want(w.send("PUT", path(PathAccount, "others", "b", good), "x", put...), 403, "AuthenticationFailed")
	w.want(w.send("PUT", path(PathAccount, container, "b", strings.Replace(good, "sp=rw", "sp=rwd", 1)), "x", put...), 403, "AuthenticationFailed")
	w.want(w.send("DELETE", path(PathAccount, container, "b", good), ""), 403, "AuthorizationPermissionMismatch")
	w.want(w.send("PUT", path(PathAccount, container, "b", w.query(PathAccount, "b", "r")), "x", put...), 403, "AuthorizationPermissionMismatch")
	w.want(w.send("PUT", path(PathAccount, container, "b", w.query(PathAccount, "b", "r"))+"&comp=blocklist", "<BlockList/>"), 403, "AuthorizationPermissionMismatch")
	w.want(w.send("GET", path(PathAccount, container, "b", w.query(PathAccount, "b", "w")), ""), 403, "AuthorizationPermissionMismatch")
	// create does not overwrite
	w.want(w.send("PUT", path(PathAccount, container, "b", w.query(PathAccount, "b", "c")), "x", put...), 403, "AuthorizationPermissionMismatch")
	w.want(w.send("PUT", path(PathAccount, container, "new", w.query(PathAccount, "new", "c")), "x", put...), 201, "")

	r, now := blobsas.Resource{Account: PathAccount, Container: container, Blob: "b"}, time.Now()
	for name, g := range map[string]blobsas.Grant{
		"over": {Permissions: "r", Expiry: now.Add(-time.Second)}, "not yet": {Permissions: "r", Start: now.Add(time.Minute), Expiry: now.Add(time.Hour)},
	} {
		a := w.want(w.send("GET", path(PathAccount, container, "b", blobsas.Sign(r, g, w.key)), ""), 403, "AuthenticationFailed")
		if !strings.Contains(a.body, "not valid in the specified time frame") {
			t.Errorf("%s: %s", name, a.body)
		}
	}

	// By the host's name, whatever the port; the account is its first label.
	acme := w.query("acme", "b", "r")
	a := w.want(w.send("GET", "/"+container+"/b?"+acme, "", "Host: acme.BLOB.core.windows.net:8443"), 200, "")
	if a.body != "x" {
		t.Errorf("by host: %q", a.body)
	}
	w.want(w.send("GET", "/"+container+"/b?"+good, "", "Host: acme.blob.core.windows.net"), 403, "AuthenticationFailed")
	e := New(Config{Hostnames: []string{"myhub.azure-devices.net", "acme.blob.core.windows.net"}, Store: w.store})
	for target, want := range map[string]bool{
		"https://acme.blob.core.windows.net/c/b": true, "https://myhub.azure-devices.net/" + PathAccount + "/c/b": true, "https://myhub.azure-devices.net/devices": false, "https://other.blob.core.windows.net/c/b": false,
	} {
		if e.Serves(httptest.NewRequestWithContext(t.Context(), "GET", target, nil)) != want {
			t.Errorf("%s: served is not %v", target, want)
		}
	}
	for fallback, want := range map[string]string{"127.0.0.1:8443": "acme.blob.core.windows.net:8443", "127.0.0.1:443": "acme.blob.core.windows.net", "localhost": "acme.blob.core.windows.net"} {
		if host, _ := e.Sign(fallback, "c", "b", now, now.Add(time.Hour)); host != want {
			t.Errorf("address %s of %s, want %s", host, fallback, want)
		}
	}
	if host, _ := New(Config{Hostnames: []string{"localhost"}, Store: w.store}).Sign("127.0.0.1:443", "c", "b", now, now.Add(time.Hour)); host != "127.0.0.1/"+PathAccount {
		t.Errorf("address %s", host)
	}
}

func TestConditions(t *testing.T) {
	w := newWorld(t, "")
	put := "x-ms-blob-type: BlockBlob"
	w.want(w.do("PUT", "b", "1", put, "If-Match: *"), 412, "ConditionNotMet")
	w.want(w.do("PUT", "b", "1", put, "If-None-Match: *"), 201, "")
	w.want(w.do("PUT", "b", "2", put, "If-None-Match: *"), 409, "BlobAlreadyExists")
	tag := w.do("HEAD", "b", "").header.Get("ETag")
	w.want(w.do("GET", "b", "", "If-None-Match: "+tag), 304, "ConditionNotMet")
	w.want(w.do("GET", "b", "", "If-Match: \"other\""), 412, "ConditionNotMet")
	w.want(w.do("GET", "b", "", "If-Match: "+tag), 200, "")
	past, future := time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat), time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
	w.want(w.do("GET", "b", "", "If-Modified-Since: "+future), 304, "ConditionNotMet")
	w.want(w.do("GET", "b", "", "If-Unmodified-Since: "+past), 412, "ConditionNotMet")
	w.want(w.do("GET", "b", "", "If-Modified-Since: yesterday"), 400, "InvalidHeaderValue")
	w.want(w.do("PUT", "b", "2", put, "If-Match: "+tag), 201, "")
	w.want(w.do("PUT", "b", "3", put, "If-Match: "+tag), 412, "ConditionNotMet")
	w.want(w.commit("b", nil, "If-Match: "+tag), 412, "ConditionNotMet")
	w.want(w.do("DELETE", "b", "", "If-Match: "+tag), 412, "ConditionNotMet")
	w.content("b", "2")
}

func TestFaults(t *testing.T) {
	w := newWorld(t, "")
	for status, code := range map[int]string{500: "InternalError", 503: "ServerBusy", 403: "AuthenticationFailed", 429: "Fault"} {
		w.trouble = Trouble{Status: status}
		w.want(w.put("b", "a", strings.Repeat("x", 4<<20)), status, code) // and the client sends all of it first
	}
	w.trouble = Trouble{Delay: time.Millisecond}
	w.want(w.put("b", "a", "x"), 201, "")
}

func FuzzBlockList(f *testing.F) {
	f.Add([]byte(xml.Header + "<BlockList><Latest>YQ==</Latest><Committed>Yg==</Committed><Uncommitted>Yw==</Uncommitted></BlockList>"))
	f.Add([]byte("<BlockList><Latest><Latest>YQ==</Latest></Latest></BlockList><BlockList/>"))
	f.Add([]byte("<!DOCTYPE x [<!ENTITY a \"b\">]><BlockList>&a;</BlockList>"))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := parseBlockList(bytes.NewReader(text))
		if err != nil {
			return
		}
		// What was taken can be written again to the same list.
		var again strings.Builder
		for _, ref := range list {
			if ref.id == "" || len(ref.id) > maxBlockID {
				t.Fatalf("taken with the id %q", ref.id)
			}
			element := []string{"Committed", "Uncommitted", "Latest"}[ref.from]
			fmt.Fprintf(&again, "<%s>%s</%[1]s>", element, base64.StdEncoding.EncodeToString([]byte(ref.id)))
		}
		second, err := parseBlockList(strings.NewReader("<BlockList>" + again.String() + "</BlockList>"))
		if err != nil || fmt.Sprint(second) != fmt.Sprint(list) {
			t.Errorf("%v became %v, %v", list, second, err)
		}
	})
}
