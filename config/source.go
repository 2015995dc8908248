package config

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/fairlead-iot/fairlead/core"
)

// Limits of what a source may hold, in bytes.
const (
	maxSecretSize = 64 << 10
	maxPEMSize    = 1 << 20
)

// Source says where a secret comes from. At most one field is set; the zero value means that there is none. Only Text
// is itself a secret, and no way of printing shows it.
type Source struct {
	File       string      // a file's name
	Credential string      // a name in systemd's $CREDENTIALS_DIRECTORY
	Env        string      // a variable of the environment
	Text       core.Secret // the secret itself
}

// IsZero reports whether there is no source.
func (s Source) IsZero() bool { return s == Source{} }

// String says where the secret comes from, never the secret.
func (s Source) String() string {
	switch {
	case s.File != "":
		return "file " + s.File
	case s.Credential != "":
		return "credential " + s.Credential
	case s.Env != "":
		return "variable " + s.Env
	case s.Text != "":
		return "the text in the configuration"
	default:
		return "nowhere"
	}
}

// Path returns the file that Resolve reads, for those who watch it; "" where it reads none.
func (s Source) Path() string {
	switch {
	case s.File != "":
		return s.File
	case s.Credential != "":
		return filepath.Join(os.Getenv("CREDENTIALS_DIRECTORY"), s.Credential)
	default:
		return ""
	}
}

// Resolve reads the secret, without its trailing newline. It reads anew each time, so that a replaced file counts.
//
// A file must be regular once symbolic links are followed (Kubernetes mounts its secrets so), belong to root or to the
// running user, and be closed to everybody else; systemd vouches for a credential itself. Errors say what to do and
// never hold the secret.
func (s Source) Resolve() (core.Secret, error) {
	text, err := s.read()
	if err != nil {
		return "", err
	}
	text = strings.TrimRight(text, "\r\n")
	if text == "" {
		return "", fmt.Errorf("read secret from %s: it is empty", s)
	}
	return core.Secret(text), nil
}

func (s Source) read() (string, error) {
	switch {
	case s.File != "":
		b, err := readFile(s.File, maxSecretSize, true)
		return string(b), err
	case s.Credential != "":
		if os.Getenv("CREDENTIALS_DIRECTORY") == "" {
			return "", fmt.Errorf("read credential %s: $CREDENTIALS_DIRECTORY is not set: is there a LoadCredential=%s:… in the systemd unit?", s.Credential, s.Credential)
		}
		b, err := readFile(s.Path(), maxSecretSize, false)
		return string(b), err
	case s.Env != "":
		v, ok := os.LookupEnv(s.Env)
		if !ok {
			return "", fmt.Errorf("read variable %s: it is not set", s.Env)
		}
		return v, nil
	case s.Text != "":
		return s.Text.Reveal(), nil
	default:
		return "", errors.New("read secret: no source is given")
	}
}

// ReadKeyFile reads a file with a private key. One that others may read is refused, by the rules of Source.Resolve.
func ReadKeyFile(name string) ([]byte, error) { return readFile(name, maxPEMSize, true) }

func readFile(name string, limit int64, private bool) (_ []byte, err error) {
	f, err := openFile(name)
	if err != nil {
		return nil, openError(name, err)
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return nil, openError(name, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: it is %s, not a file", name, modeWord(info.Mode()))
	}
	if private {
		if err := checkPrivate(name, info); err != nil {
			return nil, err
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, openError(name, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("read %s: it is larger than %d bytes", name, limit)
	}
	return b, nil
}

func openError(name string, err error) error {
	cause := err
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		cause = p.Err // its text would name the file again
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("read %s: %w: it must belong to the user that runs fairlead", name, cause)
	}
	return fmt.Errorf("read %s: %w", name, cause)
}

func modeWord(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "a directory"
	case m&fs.ModeNamedPipe != 0:
		return "a pipe"
	case m&fs.ModeSocket != 0:
		return "a socket"
	default:
		return "a device"
	}
}

// PEM says where certificates come from. At most one field is set; the zero value means none. They are public, so that
// nothing is asked of a file's owner and mode.
type PEM struct {
	File string
	Text string
}

// IsZero reports whether there are none.
func (p PEM) IsZero() bool { return p == PEM{} }

// Read returns the PEM text, which holds at least one certificate and only such as can be read.
func (p PEM) Read() ([]byte, error) {
	if p.File == "" {
		if err := checkPEM([]byte(p.Text)); err != nil {
			return nil, fmt.Errorf("read certificates: %w", err)
		}
		return []byte(p.Text), nil
	}
	b, err := readFile(p.File, maxPEMSize, false)
	if err != nil {
		return nil, err
	}
	if err := checkPEM(b); err != nil {
		return nil, fmt.Errorf("read certificates from %s: %w", p.File, err)
	}
	return b, nil
}

func checkPEM(b []byte) error {
	count := 0
	for rest := b; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if strings.Contains(block.Type, "PRIVATE KEY") {
			return errors.New("a private key stands among them: name a file of certificates only")
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("certificate %d: %w", count+1, err)
		}
		count++
	}
	if count == 0 {
		if len(bytes.TrimSpace(b)) == 0 {
			return errors.New("it is empty")
		}
		return errors.New("no certificate in it: PEM text begins with -----BEGIN CERTIFICATE-----")
	}
	return nil
}
