//go:build unix

package sdk

import "golang.org/x/sys/unix"

// silenceStdout lets descriptor 1 point where stderr does, so that what children and C code print there cannot disturb
// the handshake's pipe. Where it fails, os.Stdout is redirected all the same.
func silenceStdout() { _ = unix.Dup2(2, 1) }
