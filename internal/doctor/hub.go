package doctor

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// Facts of the hub. https://learn.microsoft.com/rest/api/iothub/device
const (
	apiVersion  = "2021-04-12"
	errorHeader = "iothub-errorcode"
	// noUpload is a correlation id that no upload has: the hub's are random and of another form.
	noUpload = "fairlead-doctor-asks-and-uploaded-nothing"
)

const (
	// answerTimeout is how long the hub may think about a request.
	answerTimeout = 8 * time.Second
	// hearLimit is how long a lost clock may keep the rest waiting before another way is tried.
	hearLimit = 5 * time.Second
	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 64 << 10
)

// question is the request of a way of HTTPS. With proof the hub says what it thinks of the credential; without, it only
// tells the time.
type question struct {
	identity  core.Identity
	userAgent string
	proof     bool
}

// answer is what the hub said.
type answer struct {
	status int
	line   string // "401 Unauthorized", fit to be shown
	code   string // as in DeviceNotFound
	// date is the hub's time, taken at the middle of the request by this machine's monotonic clock; zero where it did not
	// say.
	date, at time.Time
	proof    bool
}

// ask sends the question over conn.
func (q *question) ask(ctx context.Context, conn net.Conn, to string, c core.Credential, system func() time.Time) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { closeNow(conn) })
	defer stop()
	request, err := q.request(ctx, to, c)
	if err != nil {
		return nil, err
	}
	began := system()
	if err := request.Write(conn); err != nil {
		return nil, orTimeout(ctx, err)
	}
	response, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxAnswer)), request)
	if err != nil {
		return nil, orTimeout(ctx, err)
	}
	defer response.Body.Close() //nolint:errcheck // the connection is closed next
	a := &answer{
		status: response.StatusCode, line: fmt.Sprintf("%d %s", response.StatusCode, http.StatusText(response.StatusCode)),
		code: nameless(response.Header.Get(errorHeader)), proof: q.proof,
	}
	if date, err := http.ParseTime(response.Header.Get("Date")); err == nil {
		// A date has whole seconds, and is the time of the answer's making.
		a.date, a.at = date.Add(time.Second/2), began.Add(system().Sub(began)/2)
	}
	return a, nil
}

func orTimeout(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("no answer within %v: %w", answerTimeout, context.Cause(ctx))
	}
	return err
}

// request makes the request. It reports that an upload has failed which there is not.
func (q *question) request(ctx context.Context, to string, c core.Credential) (*http.Request, error) {
	target := "https://" + to + "/"
	method := http.MethodHead
	var body []byte
	if q.proof {
		var err error
		method, target = http.MethodPost, target+"devices/"+url.QueryEscape(q.identity.DeviceID)+"/files/notifications?api-version="+apiVersion
		if body, err = json.Marshal(map[string]any{"correlationId": noUpload, "isSuccess": false, "statusCode": 0, "statusDescription": "asked by fairlead doctor"}); err != nil {
			return nil, err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Close = true
	request.Header.Set("User-Agent", q.userAgent)
	if q.proof {
		request.Header.Set("Content-Type", "application/json; charset=utf-8")
		if c.Token != "" {
			request.Header.Set("Authorization", c.Token.Reveal())
		}
	}
	return request, nil
}

// nameless keeps a stranger's word to what a code of the hub's is made of.
func nameless(code string) string {
	const maxCode = 60
	out := make([]rune, 0, maxCode)
	for _, r := range code {
		isWord := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if isWord && len(out) < maxCode {
			out = append(out, r)
		}
	}
	return string(out)
}

// request asks the hub over conn, and writes down how that went.
func (w *walk) request(ctx context.Context, conn net.Conn, c core.Credential) error {
	began := time.Now()
	a, err := w.asks.ask(ctx, conn, w.way.To, c, w.system)
	if err != nil {
		w.found("https-failed", err.Error(), time.Since(began))
		return err
	}
	w.answer = a
	switch {
	case a.status == http.StatusTooManyRequests, a.status == http.StatusServiceUnavailable:
		w.warn("hub-busy", "it answers "+a.line, time.Since(began))
	case a.status >= 500:
		w.warn("hub-failed", "it answers "+a.line, time.Since(began))
	default:
		w.passed(LayerHTTPS, "the hub answers", time.Since(began))
	}
	return nil
}

// asked is what the ways of HTTPS came to.
type asked struct {
	*answer       // nil where none was answered
	accepted bool // the hub took the credential
	// finding is what it thinks of the credential; zero where it did not say.
	finding Check
}

// question says what to ask. The credential is asked about only where that is certain to disturb nothing, and there is a
// request for it.
func (d *doctor) question(c core.Credential, connected bool) *question {
	id := d.cfg.Identity
	hasProof := c.Token != "" || len(c.Certificate) > 0
	return &question{identity: id, userAgent: d.cfg.UserAgent, proof: hasProof && !connected && d.mayProve()}
}

// mayProve reports whether the identity has a request that proves its credential and changes nothing.
func (d *doctor) mayProve() bool {
	id := d.cfg.Identity
	return id.DeviceID != "" && id.ModuleID == "" && id.Gateway == ""
}

// askHub takes the answer of the first way of HTTPS that has one. Where none does, the routes by WebSocket lead to the same
// host and port, maybe through a proxy that the others do not have.
func (d *doctor) askHub(ctx context.Context, ways []*walk, c core.Credential, asks *question) asked {
	var got *answer
	for _, w := range ways {
		if w.answer != nil && got == nil && w.route.ToHub {
			got = w.answer
		}
	}
	for _, w := range ways {
		if got != nil || !w.way.Through || !w.route.ToHub || w.route.Use != UseWebSocket {
			continue
		}
		route := *w.route
		route.Use = UseHTTPS
		again := newWalk(&route, d.now, d.cfg.System, asks)
		again.run(ctx, c)
		got = again.answer
	}
	out := asked{answer: got}
	if got != nil && got.proof {
		out.finding, out.accepted = judgeAnswer(got)
	}
	return out
}

// hearTime asks the hub for the time where the clock is lost, as the runtime does before it makes a token.
func (d *doctor) hearTime(ctx context.Context) {
	c := d.cfg.Clock
	if c == nil || !c.IsLost() {
		return
	}
	began := time.Now()
	for _, r := range d.cfg.Routes {
		if !r.ToHub || r.Use == UseMQTT {
			continue
		}
		r.Use, r.Dial.Learn = UseHTTPS, c.Learn
		for range 2 { // a certificate may say that it is later, and is good then
			before := c.Now()
			w := newWalk(&r, d.now, d.cfg.System, &question{userAgent: d.cfg.UserAgent})
			w.run(ctx, core.Credential{})
			if w.answer != nil && !w.answer.date.IsZero() {
				c.Hear(w.answer.date)
				return
			}
			if c.Now().Sub(before) < clockWrong {
				break
			}
		}
		if time.Since(began) > hearLimit {
			return
		}
	}
}

// judgeAnswer reads what the hub thinks of the credential.
func judgeAnswer(a *answer) (finding Check, accepted bool) {
	said := "the hub answers " + a.line
	if a.code != "" {
		said += " (" + a.code + ")"
	}
	switch {
	case a.code == "DeviceDisabled":
		return find("", "device-disabled", said, facts{}), false
	case a.status == http.StatusUnauthorized:
		return find("", "credential-refused", said, facts{}), false
	case a.status == http.StatusForbidden:
		return find("", "hub-refused", said, facts{}), false
	case a.code == "DeviceNotFound":
		return find("", "device-unknown", said, facts{}), false
	case a.status < 300, a.status == http.StatusBadRequest, a.status == http.StatusNotFound && a.code != "", a.status == http.StatusConflict, a.status == http.StatusPreconditionFailed:
		return Check{Layer: LayerCredential, Severity: OK, Detail: "the hub accepts it"}, true
	default:
		return Check{}, false // busy, failed, or not the hub
	}
}
