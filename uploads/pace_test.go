package uploads_test

import (
	"context"
	"io"
	"net"
	nethttp "net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/http"
	"github.com/fairlead-iot/fairlead/transports/netdial"
	"github.com/fairlead-iot/fairlead/uploads"
)

// TestThePaceAfterARestartIsOfWhatIsSentNow: what the storage has of the life before took no time, and tells no pace.
func TestThePaceAfterARestartIsOfWhatIsSentNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 128 << 10
		r := newRig(t, func(c *uploads.Config) { c.Bandwidth = limit })
		content := contentOf(16 * block)
		u := r.add(r.file("f", content), "b")
		for now := u; now.Sent < now.Size/2; {
			var changed <-chan struct{}
			var err error
			if now, changed, err = r.q.Get(u.ID); err != nil {
				t.Fatal(err)
			}
			<-changed
		}
		r.stop()
		r.start()
		told := 0
		_, err := r.q.Wait(t.Context(), u.ID, func(u core.Upload) {
			if u.Rate == 0 {
				return
			}
			told++
			if u.Rate > 1.3*limit || u.Left > 0 && u.Left < time.Duration(float64(u.Size-u.Sent)/(1.3*limit)*float64(time.Second)) {
				t.Errorf("%.0f bytes/s, %v left at %d of %d; the limit is %d bytes/s", u.Rate, u.Left, u.Sent, u.Size, limit)
			}
		})
		if err != nil || told == 0 {
			t.Errorf("%d paces were told (%v)", told, err)
		}
		r.done(u, content)
	})
}

// TestProgressIsSeenWithinABlock: the whole file is one block of 4 MiB on a link of 64 KiB/s.
func TestProgressIsSeenWithinABlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var link slowLink
		r := newRig(t, func(c *uploads.Config) { c.MaxBlock = 0 })
		r.stop()
		storage, err := http.NewStorage(http.StorageConfig{TLS: netdial.TLSConfig{ExtraCA: r.h.CAPEM()}, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := r.h.DialContext(ctx, network, addr)
			return &slowConn{conn, &link}, err
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer storage.CloseIdleConnections()
		r.cfg.Storage = storage
		r.start()
		content := contentOf(4 << 20)
		u := r.add(r.file("f", content), "b")
		var steps, percent int
		last := int64(0)
		_, err = r.q.Wait(t.Context(), u.ID, func(u core.Upload) {
			if written := link.written.Load(); u.Sent > written {
				t.Errorf("%d bytes are told, %d were written", u.Sent, written)
			}
			if u.State == core.UploadRunning && u.Sent > last && u.Sent < u.Size {
				steps, percent = steps+1, int(100*u.Sent/u.Size)
				if took := time.Duration(float64(u.Size-u.Sent) / (64 << 10) * float64(time.Second)); steps > 5 && (u.Rate < 50e3 || u.Rate > 80e3 || u.Left < took*3/4 || u.Left > took*3/2) {
					t.Errorf("%.0f bytes/s, %v left at %d %%, want about 64 KiB/s and %v", u.Rate, u.Left, percent, took)
				}
			}
			last = u.Sent
		})
		if err != nil || steps < 20 || percent < 90 {
			t.Errorf("%d steps up to %d %%: %v; want at least 20, over 90 %%", steps, percent, err)
		}
		r.done(u, content)
	})
}

// slowLink is written to at 64 KiB/s.
type slowLink struct{ written atomic.Int64 }

type slowConn struct {
	net.Conn
	link *slowLink
}

func (c *slowConn) Write(p []byte) (int, error) {
	time.Sleep(time.Duration(len(p)) * time.Second / (64 << 10)) // the link's pace
	n, err := c.Conn.Write(p)
	c.link.written.Add(int64(n))
	return n, err
}

// TestProgressFallsBackWhenABlockBreaksOff: what must be sent again does not count as sent.
func TestProgressFallsBackWhenABlockBreaksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *uploads.Config) { c.MaxBlock = 0 })
		var once sync.Once
		r.storage.interfere(func(req *nethttp.Request) (err error) {
			if req.URL.Query().Get("comp") == "block" {
				once.Do(func() {
					for range 16 {
						_, _ = io.CopyN(io.Discard, req.Body, 64<<10)
						time.Sleep(time.Second) // the link's pace
					}
					err = errCut
				})
			}
			return err
		})
		content := contentOf(4 << 20)
		most, isBack := int64(0), false
		u := r.add(r.file("f", content), "b")
		_, err := r.q.Wait(t.Context(), u.ID, func(u core.Upload) {
			if u.State == core.UploadWaiting {
				isBack = u.Sent == 0
			} else if !isBack {
				most = max(most, u.Sent)
			}
		})
		if err != nil || !isBack || most < 512<<10 || most > 1<<20 {
			t.Errorf("up to %d were told of 1 MiB that was written before it broke off, back at nothing: %v (%v)", most, isBack, err)
		}
		r.done(u, content)
	})
}

// TestProgressIsAnEventNowAndThen: a slow upload tells of itself, a quick one is over before.
func TestProgressIsAnEventNowAndThen(t *testing.T) {
	for _, c := range []struct {
		name                 string
		size                 int
		least, most, noRates int
	}{
		{"a quick one", 20, 0, 0, 0},
		{"30 s", 30 * (64 << 10), 4, 11, 1},
		{"5 minutes", 5 * 60 * (64 << 10), 25, 34, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var lines []string
				r := newRig(t, func(cfg *uploads.Config) {
					cfg.Bandwidth = 64 << 10
					cfg.Event = func(text string) {
						mu.Lock()
						defer mu.Unlock()
						if strings.HasPrefix(text, "upload progress") {
							lines = append(lines, text)
						}
					}
				})
				content := contentOf(c.size)
				r.done(r.add(r.file("f", content), "b"), content)
				mu.Lock()
				defer mu.Unlock()
				if len(lines) < c.least || len(lines) > c.most {
					t.Errorf("%d lines, want %d to %d:\n%s", len(lines), c.least, c.most, strings.Join(lines, "\n"))
				}
				for _, l := range lines[min(c.noRates, len(lines)):] {
					if !strings.Contains(l, " blob=b percent=") || !strings.Contains(l, " rate=6") || !strings.Contains(l, "KiB/s left=") {
						t.Errorf("a line is %q", l)
					}
				}
			})
		})
	}
}
