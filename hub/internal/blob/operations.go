package blob

import (
	"bytes"
	"cmp"
	"crypto/md5" //nolint:gosec // Azure's checksum of transport, not a protection
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	headerMD5   = "Content-MD5"
	headerCRC64 = "x-ms-content-crc64"
)

// checksums are those that a client says its body has.
type checksums struct {
	md5   []byte
	crc64 []byte // little endian, as Azure writes it
}

func (c *call) checksums() (checksums, error) {
	var sums checksums
	for header, at := range map[string]struct {
		to   *[]byte
		size int
	}{headerMD5: {&sums.md5, md5.Size}, headerCRC64: {&sums.crc64, crc64.Size}} {
		text := c.r.Header.Get(header)
		if text == "" {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(raw) != at.size {
			if header == headerMD5 {
				return sums, refuse(http.StatusBadRequest, codeInvalidMD5, "The MD5 value specified in the request is invalid. MD5 value must be 128 bits and base64-encoded.")
			}
			return sums, refuse(http.StatusBadRequest, codeHeaderValue, "The value for %s must be 64 bits and base64-encoded.", header)
		}
		*at.to = raw
	}
	if sums.md5 != nil && sums.crc64 != nil {
		return sums, refuse(http.StatusBadRequest, codeHeaderValue, "Only one of %s and %s may be there.", headerMD5, headerCRC64)
	}
	return sums, nil
}

// check compares what came with what the client says. A success says in kind what
// came; a refusal must not, since these headers are about a body.
func (c *call) check(sums checksums, gotMD5 []byte, gotCRC64 uint64) error {
	crc := binary.LittleEndian.AppendUint64(nil, gotCRC64)
	if sums.md5 != nil {
		if !bytes.Equal(sums.md5, gotMD5) {
			return refuse(http.StatusBadRequest, codeMD5Mismatch, "The MD5 value specified in the request did not match with the MD5 value calculated by the server.")
		}
		c.sumHeader, c.sum = headerMD5, gotMD5
		return nil
	}
	if sums.crc64 != nil && !bytes.Equal(sums.crc64, crc) {
		return refuse(http.StatusBadRequest, codeCRC64Mismatch, "The CRC64 value specified in the request did not match with the CRC64 value calculated by the server.")
	}
	c.sumHeader, c.sum = headerCRC64, crc
	return nil
}

// receive takes the body in and checks it. The caller ends what it gives.
func (c *call) receive(limit int64, withMD5 bool) (*received, error) {
	if c.r.ContentLength < 0 {
		return nil, refuse(http.StatusLengthRequired, codeMissingLength, "Content-Length HTTP header is not specified.")
	}
	if c.r.ContentLength > limit {
		return nil, refuse(http.StatusRequestEntityTooLarge, codeTooLarge, "The request body is too large and exceeds the maximum permissible limit of %d bytes in this version of the service.", limit)
	}
	sums, err := c.checksums()
	if err != nil {
		return nil, err
	}
	in, err := c.cfg.Store.receive(c.body(), c.r.ContentLength, withMD5 || sums.md5 != nil, &c.buffers)
	if err != nil {
		return nil, err
	}
	if err := c.check(sums, in.md5, in.crc64); err != nil {
		in.end()
		return nil, err
	}
	return in, nil
}

// https://learn.microsoft.com/rest/api/storageservices/put-block
func (c *call) putBlock() error {
	if err := c.need("w"); err != nil {
		return err
	}
	id, err := parseBlockID(c.r.URL.Query().Get("blockid"))
	if err != nil {
		return err
	}
	if c.r.ContentLength == 0 {
		return refuse(http.StatusBadRequest, codeHeaderValue, "The value for one of the HTTP headers is not in the correct format: Content-Length: a block has at least one byte.")
	}
	limit, _ := limits(c.version)
	in, err := c.receive(limit, false)
	if err != nil {
		return err
	}
	defer in.end()
	if err := c.cfg.Store.putBlock(c.key(), id, in); err != nil {
		return err
	}
	c.created()
	return nil
}

// https://learn.microsoft.com/rest/api/storageservices/put-blob
func (c *call) putBlob() error {
	if err := c.need("wc"); err != nil {
		return err
	}
	switch kind := c.r.Header.Get("x-ms-blob-type"); kind {
	case "BlockBlob":
	case "":
		return refuse(http.StatusBadRequest, codeMissingHeader, "An HTTP header that's mandatory for this request is not specified: x-ms-blob-type.")
	default:
		return refuse(http.StatusBadRequest, codeHeaderValue, "x-ms-blob-type %s: only BlockBlob is modelled.", kind)
	}
	if c.r.Header.Get("x-ms-copy-source") != "" {
		return refuse(http.StatusBadRequest, codeUnsupportedHeader, "One of the HTTP headers specified in the request is not supported: x-ms-copy-source: copying is not modelled.")
	}
	p, err := c.properties(c.r.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	_, limit := limits(c.version)
	in, err := c.receive(limit, true)
	if err != nil {
		return err
	}
	defer in.end()
	if p.MD5 == nil {
		p.MD5 = in.md5
	}
	b, err := c.cfg.Store.putBlob(c.key(), in, p, c.mayWrite)
	if err != nil {
		return err
	}
	c.stamp(b)
	c.created()
	return nil
}

// https://learn.microsoft.com/rest/api/storageservices/put-block-list
func (c *call) putBlockList() error {
	if err := c.need("w"); err != nil {
		return err
	}
	sums, err := c.checksums()
	if err != nil {
		return err
	}
	p, err := c.properties("")
	if err != nil {
		return err
	}
	digest, crc := md5.New(), crc64.New(crc64.MakeTable(crcPolynomial)) //nolint:gosec // as above
	body := io.TeeReader(http.MaxBytesReader(c.w, io.NopCloser(c.body()), maxBlockList), io.MultiWriter(digest, crc))
	list, err := parseBlockList(body)
	if err != nil {
		return err
	}
	if err := c.check(sums, digest.Sum(nil), crc.Sum64()); err != nil {
		return err
	}
	b, err := c.cfg.Store.putBlockList(c.key(), list, p, c.mayWrite)
	if err != nil {
		return err
	}
	c.stamp(b)
	c.created()
	return nil
}

// https://learn.microsoft.com/rest/api/storageservices/get-block-list
func (c *call) getBlockList() error {
	if err := c.need("r"); err != nil {
		return err
	}
	kind := strings.ToLower(cmp.Or(c.r.URL.Query().Get("blocklisttype"), "committed"))
	if kind != "committed" && kind != "uncommitted" && kind != "all" {
		return refuse(http.StatusBadRequest, codeQueryValue, "Value for one of the query parameters specified in the request URI is invalid: blocklisttype.")
	}
	b, inBlob, waiting, err := c.cfg.Store.blocks(c.key())
	if err != nil {
		return err
	}
	var body blockListBody
	if kind != "uncommitted" {
		body.Committed = newBlockBody(inBlob)
	}
	if kind != "committed" {
		body.Uncommitted = newBlockBody(waiting)
	}
	size := int64(0)
	if b != nil {
		c.stamp(b)
		size = b.Size
	}
	c.w.Header().Set("x-ms-blob-content-length", strconv.FormatInt(size, 10))
	writeXML(c.w, http.StatusOK, body)
	return nil
}

// https://learn.microsoft.com/rest/api/storageservices/get-blob and
// …/get-blob-properties
func (c *call) getBlob() error {
	if err := c.need("r"); err != nil {
		return err
	}
	in, err := c.cfg.Store.Open(c.key())
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // it has none
	b := in.Blob()
	if err := c.mayRead(b); err != nil {
		return err
	}
	offset, length, status := int64(0), b.Size, http.StatusOK
	if text := cmp.Or(c.r.Header.Get("x-ms-range"), c.r.Header.Get("Range")); text != "" && c.r.Method == http.MethodGet {
		ok := false
		if offset, length, ok = parseRange(text, b.Size); !ok {
			c.w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", b.Size))
			return refuse(http.StatusRequestedRangeNotSatisfiable, codeInvalidRange, "The range specified is invalid for the current size of the resource.")
		}
		status = http.StatusPartialContent
		c.w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", offset, offset+length-1, b.Size))
	}
	c.stamp(b)
	c.describe(b, status == http.StatusPartialContent)
	c.w.Header().Set("Content-Length", strconv.FormatInt(length, 10))
	c.w.WriteHeader(status)
	if c.r.Method == http.MethodHead {
		return nil
	}
	if err := in.copyTo(&patientWriter{c.w, c.control}, offset, length, &c.buffers); err != nil {
		c.cfg.Logger.Debug("blob not read to its end", "blob", c.resource.Blob, "id", c.id, "err", err)
		panic(http.ErrAbortHandler) // the status is out: a connection that breaks is what can still be said
	}
	_ = c.control.SetWriteDeadline(time.Time{}) // the connection may serve further requests
	return nil
}

// https://learn.microsoft.com/rest/api/storageservices/delete-blob
func (c *call) deleteBlob() error {
	if err := c.need("d"); err != nil {
		return err
	}
	if err := c.cfg.Store.remove(c.key(), c.mayWrite); err != nil {
		return err
	}
	c.w.Header().Set("x-ms-delete-type-permanent", "true")
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}

func (c *call) key() Key { return Key{c.resource.Container, c.resource.Blob} }

func (c *call) created() {
	c.w.Header().Set(c.sumHeader, base64.StdEncoding.EncodeToString(c.sum))
	c.w.Header().Set("x-ms-request-server-encrypted", "true")
	c.w.WriteHeader(http.StatusCreated)
}

// stamp writes the headers that name a state of the blob.
func (c *call) stamp(b *Blob) {
	c.w.Header().Set("ETag", b.ETag)
	c.w.Header().Set("Last-Modified", b.Modified.UTC().Format(http.TimeFormat))
}

// describe writes the blob's properties.
func (c *call) describe(b *Blob, isPart bool) {
	h, p := c.w.Header(), b.Properties
	for name, value := range map[string]string{
		"Content-Type": p.ContentType, "Content-Encoding": p.ContentEncoding, "Content-Language": p.ContentLanguage,
		"Content-Disposition": p.ContentDisposition, "Cache-Control": p.CacheControl,
	} {
		if value = cmp.Or(c.sas.Override(name), value); value != "" {
			h.Set(name, value)
		}
	}
	if p.MD5 != nil {
		name := headerMD5
		if isPart {
			name = "x-ms-blob-content-md5"
		}
		h.Set(name, base64.StdEncoding.EncodeToString(p.MD5))
	}
	for name, value := range p.Metadata {
		h.Set("x-ms-meta-"+name, value)
	}
	h.Set("Accept-Ranges", "bytes")
	h.Set("x-ms-blob-type", "BlockBlob")
	h.Set("x-ms-creation-time", b.Created.UTC().Format(http.TimeFormat))
	h.Set("x-ms-lease-status", "unlocked")
	h.Set("x-ms-lease-state", "available")
	h.Set("x-ms-server-encrypted", "true")
}

// properties reads what the client says of the blob.
func (c *call) properties(contentType string) (Properties, error) {
	h := c.r.Header
	p := Properties{
		ContentType:        cmp.Or(h.Get("x-ms-blob-content-type"), contentType, "application/octet-stream"),
		ContentEncoding:    h.Get("x-ms-blob-content-encoding"),
		ContentLanguage:    h.Get("x-ms-blob-content-language"),
		ContentDisposition: h.Get("x-ms-blob-content-disposition"),
		CacheControl:       h.Get("x-ms-blob-cache-control"),
	}
	if text := h.Get("x-ms-blob-content-md5"); text != "" {
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(raw) != md5.Size {
			return p, refuse(http.StatusBadRequest, codeInvalidMD5, "The MD5 value specified in the request is invalid. MD5 value must be 128 bits and base64-encoded.")
		}
		p.MD5 = raw
	}
	size := 0
	for name, values := range h {
		if rest, ok := strings.CutPrefix(strings.ToLower(name), "x-ms-meta-"); ok && rest != "" {
			if p.Metadata == nil {
				p.Metadata = map[string]string{}
			}
			p.Metadata[rest] = values[0]
			size += len(rest) + len(values[0])
		}
	}
	if size > maxMetadata {
		return p, refuse(http.StatusBadRequest, codeMetadataTooLarge, "The size of the specified metadata exceeds the maximum size permitted, %d bytes.", maxMetadata)
	}
	return p, nil
}

// parseRange reads "bytes=first-last" or "bytes=first-", the two forms that Azure
// takes. https://learn.microsoft.com/rest/api/storageservices/specifying-the-range-header-for-blob-service-operations
func parseRange(text string, size int64) (offset, length int64, ok bool) {
	rest, ok := strings.CutPrefix(text, "bytes=")
	first, last, dash := strings.Cut(rest, "-")
	offset, err := strconv.ParseInt(first, 10, 64)
	if !ok || !dash || err != nil || offset < 0 || offset >= size {
		return 0, 0, false
	}
	if last == "" {
		return offset, size - offset, true
	}
	end, err := strconv.ParseInt(last, 10, 64)
	if err != nil || end < offset {
		return 0, 0, false
	}
	return offset, min(end-offset+1, size-offset), true
}

// mayWrite checks what the request demands of the blob that is there, nil for
// none. https://learn.microsoft.com/rest/api/storageservices/specifying-conditional-headers-for-blob-service-operations
func (c *call) mayWrite(b *Blob) error {
	if b != nil && c.r.Method == http.MethodPut && !c.sas.Allows("w") {
		return refuse(http.StatusForbidden, codePermission, "This request is not authorized to perform this operation using this permission: it may create a blob, not overwrite one.")
	}
	if b != nil && c.r.Header.Get("If-None-Match") == "*" {
		return refuse(http.StatusConflict, codeAlreadyExists, "The specified blob already exists.")
	}
	failed := refuse(http.StatusPreconditionFailed, codeCondition, "The condition specified using HTTP conditional header(s) is not met.")
	holds, err := c.conditions(b)
	if err != nil {
		return err
	}
	if !holds {
		return failed
	}
	return nil
}

// mayRead is mayWrite for reading: what has not changed is 304.
func (c *call) mayRead(b *Blob) error {
	holds, err := c.conditions(b)
	if err != nil || holds {
		return err
	}
	if c.r.Header.Get("If-Match") == "" && c.r.Header.Get("If-Unmodified-Since") == "" {
		c.stamp(b)
		return refuse(http.StatusNotModified, codeCondition, "The condition specified using HTTP conditional header(s) is not met.")
	}
	return refuse(http.StatusPreconditionFailed, codeCondition, "The condition specified using HTTP conditional header(s) is not met.")
}

func (c *call) conditions(b *Blob) (bool, error) {
	h := c.r.Header
	matches := func(tag string) bool { return b != nil && (tag == "*" || tag == b.ETag || `"`+tag+`"` == b.ETag) }
	if tag := h.Get("If-Match"); tag != "" && !matches(tag) {
		return false, nil
	}
	if tag := h.Get("If-None-Match"); tag != "" && matches(tag) {
		return false, nil
	}
	for name, wantNewer := range map[string]bool{"If-Modified-Since": true, "If-Unmodified-Since": false} {
		text := h.Get(name)
		if text == "" || b == nil {
			continue
		}
		at, err := http.ParseTime(text)
		if err != nil {
			return false, errors.Join(refuse(http.StatusBadRequest, codeHeaderValue, "The value for %s is not a date.", name), err)
		}
		if isNewer := b.Modified.Truncate(time.Second).After(at); isNewer != wantNewer {
			return false, nil
		}
	}
	return true, nil
}
