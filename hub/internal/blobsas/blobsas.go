package blobsas

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// Versions of the service at which the text under a signature changed,
// https://learn.microsoft.com/rest/api/storageservices/create-service-sas.
const (
	oldest          = "2015-04-05" // of the form that this package knows
	withResource    = "2018-11-09" // adds sr and the time of a snapshot
	withEncryption  = "2020-12-06" // adds the encryption scope
	serviceVersion  = "2018-03-28" // what IoT Hub's own signatures have
	accountVersion  = "2019-02-02"
	timeFormat      = "2006-01-02T15:04:05Z"
	blobResource    = "b"
	wholeContainer  = "c"
	blobServiceName = "b"
)

// Resource is a blob, or a container when Blob is empty. The names are not
// encoded.
type Resource struct {
	Account   string
	Container string
	Blob      string
}

func (r Resource) canonical() string {
	text := "/blob/" + r.Account + "/" + r.Container
	if r.Blob != "" {
		text += "/" + r.Blob
	}
	return text
}

// Grant is what a signature allows.
type Grant struct {
	Permissions string    // letters in Azure's order racwdl
	Start       time.Time // zero for none
	Expiry      time.Time
}

// Sign makes the query parameters, without a question mark, that grant g on a
// blob.
func Sign(r Resource, g Grant, key []byte) string {
	s := SAS{resource: blobResource, fields: url.Values{
		"sv": {serviceVersion}, "sr": {blobResource}, "sp": {g.Permissions}, "se": {g.Expiry.UTC().Format(timeFormat)},
	}}
	if !g.Start.IsZero() {
		s.fields.Set("st", g.Start.UTC().Format(timeFormat))
	}
	s.fields.Set("sig", base64.StdEncoding.EncodeToString(sum(s.text(r), key)))
	return s.fields.Encode()
}

// SignAccount makes the query parameters, without a question mark, that grant g
// on every container and blob of an account.
func SignAccount(account string, g Grant, key []byte) string {
	const types = "co" // containers and objects
	expiry := g.Expiry.UTC().Format(timeFormat)
	text := strings.Join([]string{account, g.Permissions, blobServiceName, types, "", expiry, "", "https", accountVersion, ""}, "\n")
	return url.Values{
		"sv": {accountVersion}, "ss": {blobServiceName}, "srt": {types}, "sp": {g.Permissions}, "se": {expiry}, "spr": {"https"},
		"sig": {base64.StdEncoding.EncodeToString(sum(text, key))},
	}.Encode()
}

// SAS is a service signature that a client presents.
type SAS struct {
	Start     time.Time // zero for none
	Expiry    time.Time
	Version   string // sv
	fields    url.Values
	resource  string // sr
	signature []byte
	lowest    netip.Addr // of sip; the zero value when there is none
	highest   netip.Addr
}

// ErrNone is a query without a signature.
var ErrNone = errors.New("blobsas: no signature")

// Parse reads the parameters of a service signature. Errors say which one is
// wrong.
func Parse(query url.Values) (SAS, error) {
	if !query.Has("sig") {
		return SAS{}, ErrNone
	}
	s := SAS{fields: url.Values{}}
	for _, name := range []string{
		"sv", "sr", "sp", "st", "se", "spr", "sip", "si", "ses", "snapshot", "sig", "rscc", "rscd", "rsce", "rscl", "rsct",
	} {
		switch values := query[name]; len(values) {
		case 0:
		case 1:
			s.fields.Set(name, values[0])
		default:
			return SAS{}, fmt.Errorf("blobsas: %s stands there %d times", name, len(values))
		}
	}
	var err error
	s.Version = s.fields.Get("sv")
	if _, err := time.Parse(time.DateOnly, s.Version); err != nil || s.Version < oldest {
		return SAS{}, fmt.Errorf("blobsas: sv must be a version from %s on", oldest)
	}
	switch s.resource = s.fields.Get("sr"); s.resource {
	case blobResource, wholeContainer:
	default:
		return SAS{}, errors.New("blobsas: sr must be b or c: other resources, and signatures of an account or of a user, are not modelled")
	}
	if s.fields.Has("si") {
		return SAS{}, errors.New("blobsas: si: there are no stored access policies here")
	}
	if s.fields.Get("sp") == "" {
		return SAS{}, errors.New("blobsas: sp is missing")
	}
	if text := s.fields.Get("st"); text != "" {
		if s.Start, err = parseTime(text); err != nil {
			return SAS{}, errors.New("blobsas: st is not a time")
		}
	}
	if s.Expiry, err = parseTime(s.fields.Get("se")); err != nil {
		return SAS{}, errors.New("blobsas: se is not a time")
	}
	switch s.fields.Get("spr") {
	case "", "https", "https,http":
	default:
		return SAS{}, errors.New("blobsas: spr must be https or https,http")
	}
	if text := s.fields.Get("sip"); text != "" {
		if s.lowest, s.highest, err = parseRange(text); err != nil {
			return SAS{}, errors.New("blobsas: sip is not an address or a range of them")
		}
	}
	if s.signature, err = base64.StdEncoding.DecodeString(s.fields.Get("sig")); err != nil {
		return SAS{}, errors.New("blobsas: sig is not base64")
	}
	return s, nil
}

// parseTime reads the forms that Azure takes: a date, with hours and minutes,
// with seconds, with up to seven digits of a second.
func parseTime(text string) (time.Time, error) {
	var err error
	for _, form := range []string{time.DateOnly, "2006-01-02T15:04Z", timeFormat} { // fractions need no form of their own
		var at time.Time
		if at, err = time.Parse(form, text); err == nil {
			return at, nil
		}
	}
	return time.Time{}, err
}

func parseRange(text string) (low, high netip.Addr, err error) {
	first, last, isRange := strings.Cut(text, "-")
	if low, err = netip.ParseAddr(first); err != nil || !isRange {
		return low, low, err
	}
	high, err = netip.ParseAddr(last)
	return low, high, err
}

// text is what is signed: the values in a fixed order, each of which has its
// line whether it is there or not.
func (s SAS) text(r Resource) string {
	if s.resource == wholeContainer {
		r.Blob = ""
	}
	f := s.fields.Get
	lines := []string{f("sp"), f("st"), f("se"), r.canonical(), f("si"), f("sip"), f("spr"), f("sv")}
	if f("sv") >= withResource {
		lines = append(lines, f("sr"), f("snapshot"))
	}
	if f("sv") >= withEncryption {
		lines = append(lines, f("ses"))
	}
	return strings.Join(append(lines, f("rscc"), f("rscd"), f("rsce"), f("rscl"), f("rsct")), "\n")
}

// SignedFor reports whether key made the signature for the resource, or for the
// container that it is in.
func (s SAS) SignedFor(r Resource, key []byte) bool {
	return hmac.Equal(sum(s.text(r), key), s.signature)
}

// Allows reports whether one of the permissions was granted.
func (s SAS) Allows(permissions string) bool {
	return strings.ContainsAny(s.fields.Get("sp"), permissions)
}

// AllowsFrom reports whether a request may come from the address.
func (s SAS) AllowsFrom(address netip.Addr) bool {
	if !s.lowest.IsValid() {
		return true
	}
	address = address.Unmap()
	return address.BitLen() == s.lowest.BitLen() && address.Compare(s.lowest) >= 0 && address.Compare(s.highest) <= 0
}

// Override returns what an answer's header must be instead of the blob's own, ""
// for no change. Header is one of those that Azure lists: Cache-Control,
// Content-Disposition, Content-Encoding, Content-Language, Content-Type.
func (s SAS) Override(header string) string {
	switch header {
	case "Cache-Control":
		return s.fields.Get("rscc")
	case "Content-Disposition":
		return s.fields.Get("rscd")
	case "Content-Encoding":
		return s.fields.Get("rsce")
	case "Content-Language":
		return s.fields.Get("rscl")
	case "Content-Type":
		return s.fields.Get("rsct")
	default:
		return ""
	}
}

func sum(text string, key []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}
