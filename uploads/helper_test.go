package uploads_test

import (
	"encoding/base64"
	nethttp "net/http"
	"strings"
)

func base64Of(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// header finds a header whose name is not written as Go writes them: the storage client does not.
func header(r *nethttp.Request, name string) string {
	for key, values := range r.Header {
		if strings.EqualFold(key, name) {
			return values[0]
		}
	}
	return ""
}
