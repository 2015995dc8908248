package host

import (
	"errors"
	"io"
	"os/exec"
)

// pipes would be pipes that the plugin inherits: here plugins are reached by gRPC only, since a process inherits no
// descriptors by number.
type pipes struct {
	own io.ReadWriteCloser
	env string
}

func handDown(*exec.Cmd) (*pipes, error) { return &pipes{}, errors.ErrUnsupported }

func (*pipes) started() {}

func (*pipes) close() {}
