//go:build unix

package host

import (
	"fmt"
	"os"
	"os/exec"

	"github.com/fairlead-iot/fairlead/internal/quietio"
	"github.com/fairlead-iot/fairlead/plugins/internal/wire"
)

// pipes is a pair of pipes of which the plugin inherits its ends.
type pipes struct {
	own    *quietio.Pipe
	env    string     // tells the plugin which descriptors its ends are
	theirs []*os.File // the plugin's ends, as long as it has not started
}

// handDown makes the pair and gives cmd its ends.
func handDown(cmd *exec.Cmd) (*pipes, error) {
	theirReader, writer, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipes for the plugin: %w", err)
	}
	reader, theirWriter, err := os.Pipe()
	if err != nil {
		_, _ = theirReader.Close(), writer.Close()
		return nil, fmt.Errorf("make pipes for the plugin: %w", err)
	}
	p := &pipes{own: quietio.NewPipe(reader, writer), theirs: []*os.File{theirReader, theirWriter}}
	first := 3 + len(cmd.ExtraFiles) // behind the standard three
	cmd.ExtraFiles = append(cmd.ExtraFiles, p.theirs...)
	p.env = fmt.Sprintf("%s=%d,%d", wire.StreamKey, first, first+1)
	return p, nil
}

// started lets go of the plugin's ends, so that the pipes end with the plugin.
func (p *pipes) started() {
	for _, f := range p.theirs {
		_ = f.Close()
	}
}

// close ends the pipes. It may be called more than once.
func (p *pipes) close() { _ = p.own.Close() }
