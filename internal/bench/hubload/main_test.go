//go:build linux

package hubload

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
)

var (
	figures = flag.Bool("figures", false, "measure, and print the table")
	rounds  = flag.Int("rounds", 7, "how often each figure is taken; its median counts")
)

// The roles of this test binary beside its own.
const (
	roleVar = "FAIRLEAD_BENCH_ROLE"
	dirVar  = "FAIRLEAD_BENCH_DIR"
)

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(roleVar) {
	case "generator":
		err = runGenerator()
	case "sink":
		err = runSink(os.Getenv(dirVar))
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// order is a request to the generator's process; one of them is set.
type order struct {
	Open  *openOrder
	Run   *Job
	Close bool
}

type openOrder struct {
	Target
	Clients []Client
}

type answer struct {
	Error   string  `json:",omitempty"`
	Seconds float64 // of a job
}

// runGenerator is the generator's process: orders come on stdin, answers go to stdout, until stdin ends.
func runGenerator() error {
	var g Generator
	defer g.Close()
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var o order
		if err := in.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var a answer
		var err error
		switch {
		case o.Open != nil:
			err = g.Open(o.Open.Target, o.Open.Clients)
		case o.Run != nil:
			took, runErr := g.Run(*o.Run)
			a.Seconds, err = took.Seconds(), runErr
		case o.Close:
			g.Close()
		}
		if err != nil {
			a.Error = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}

// runSink is the sink's process, with a certificate that stands in dir. Its address goes to stdout.
func runSink(dir string) error {
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return ServeSink(l, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13})
}
