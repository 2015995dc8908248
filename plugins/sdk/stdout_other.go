//go:build !unix

package sdk

// silenceStdout does nothing here: os.Stdout is redirected, but what children and C code print on stdout reaches the
// host, which logs it.
func silenceStdout() {}
