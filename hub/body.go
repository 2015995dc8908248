package hub

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// bodyWithin (ours) is how long a request's body may take. Bodies are at most 1
// MiB; files go to the blob endpoint, which has limits of its own.
const bodyWithin = time.Minute

// boundBodies gives up on clients that stall in the middle of a body, whoever they
// are. Without it a connection that nobody knows would last for ever: the server
// reads the rest of a body before it answers, also for a handler that does not
// want it, and knows a limit for headers only.
func boundBodies(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body == nil || r.Body == http.NoBody {
			next.ServeHTTP(w, r)
			return
		}
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Now().Add(bodyWithin)) // a connection without deadlines waits for ever
		bounded := *r                                           // the server looks at its own request again
		bounded.Body = &boundBody{r.Body, control}
		next.ServeHTTP(w, &bounded)
	})
}

// boundBody takes the deadline away once the body is read: what the handler does
// then may last, and the server watches the connection meanwhile.
type boundBody struct {
	io.ReadCloser
	control *http.ResponseController
}

func (b *boundBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		_ = b.control.SetReadDeadline(time.Time{}) // as above
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("it did not come whole within %v", bodyWithin)
	}
	return n, err
}
