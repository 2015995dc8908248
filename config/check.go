package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/fairlead-iot/fairlead/core"
)

// Verify says how secrets must look, in the words of those who use them. Its errors must not hold the secret. A nil
// function checks nothing.
type Verify struct {
	ConnectionString func(core.Secret) error
	Key              func(core.Secret) error // a symmetric key
	SASToken         func(core.Secret) error
}

// CheckFiles looks at what the configuration names outside itself: secrets, certificates, keys and programs. It uses no
// network and changes nothing.
func (c *Config) CheckFiles(v Verify) []Problem {
	k := checker{c: c}
	d := &c.Device
	k.secret("device.connection_string", d.ConnectionString, v.ConnectionString)
	if d.SymmetricKey != nil {
		k.secret("device.symmetric_key.key", d.SymmetricKey.Key, v.Key)
	}
	k.secret("device.sastoken", d.SASToken, v.SASToken)
	if x := d.X509; x != nil {
		k.certificate("device.x509", x.CertFile, x.KeyFile, x.PassPhrase)
	}
	if p := d.Provisioning; p != nil {
		k.secret("device.provisioning.symmetric_key", p.SymmetricKey, v.Key)
		if x := p.X509; x != nil {
			k.certificate("device.provisioning.x509", x.CertFile, x.KeyFile, x.PassPhrase)
		}
	}
	k.pem("tls.server_verification_cert", c.TLS.ServerVerificationCert)
	k.pem("tls.extra_ca", c.TLS.ExtraCA)
	for i, t := range c.Transports {
		k.secret(itemKey("transports", i)+".proxy_options.proxy_password", t.Proxy.Password, nil)
	}
	k.secret("uploads.proxy_options.proxy_password", c.Uploads.Proxy.Password, nil)
	for _, p := range c.Plugins {
		k.program("plugins."+p.Name+".command[0]", p.Command)
	}
	k.stateDir()
	return sortProblems(k.problems, c.files)
}

type checker struct {
	c        *Config
	problems []Problem
}

func (k *checker) add(key string, err error) {
	k.problems = append(k.problems, k.c.Problem(key, "%v", err))
}

func (k *checker) secret(key string, s Source, verify func(core.Secret) error) {
	if s.IsZero() {
		return
	}
	v, err := s.Resolve()
	if err == nil && verify != nil {
		err = verify(v)
	}
	if err != nil {
		k.add(key, err)
	}
}

func (k *checker) certificate(key, certFile, keyFile string, pass Source) {
	k.pem(key+".cert_file", PEM{File: certFile})
	if keyFile != "" {
		if err := CheckKeyFile(keyFile); err != nil {
			k.add(key+".key_file", err)
		}
	}
	k.secret(key+".pass_phrase", pass, nil)
}

func (k *checker) pem(key string, p PEM) {
	if p.IsZero() {
		return
	}
	if _, err := p.Read(); err != nil {
		k.add(key, err)
	}
}

func (k *checker) program(key string, command []string) {
	if len(command) == 0 {
		return
	}
	name := command[0]
	if !strings.ContainsRune(name, filepath.Separator) {
		if _, err := exec.LookPath(name); err != nil {
			k.add(key, fmt.Errorf("find program %s in PATH: %w", name, reason(err)))
		}
		return
	}
	info, err := os.Stat(name)
	switch {
	case err != nil:
		k.add(key, fmt.Errorf("find program %s: %w", name, reason(err)))
	case !info.Mode().IsRegular():
		k.add(key, fmt.Errorf("program %s: it is %s, not a file", name, modeWord(info.Mode())))
	default:
		if _, err := exec.LookPath(name); err != nil {
			k.add(key, fmt.Errorf("program %s cannot be executed: %w: chmod +x %s", name, reason(err), name))
		}
	}
}

// stateDir wants what is there of the path to be a directory; the rest is made when the runtime starts.
func (k *checker) stateDir() {
	dir := k.c.StateDir
	for dir != "" {
		info, err := os.Stat(dir)
		if err == nil {
			if !info.IsDir() {
				k.add("state_dir", fmt.Errorf("%s is %s, not a directory", dir, fileWord(info.Mode())))
			}
			return
		}
		up := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || up == dir {
			k.add("state_dir", fmt.Errorf("find directory %s: %w", k.c.StateDir, reason(err)))
			return
		}
		dir = up
	}
}

func fileWord(m fs.FileMode) string {
	if m.IsRegular() {
		return "a file"
	}
	return modeWord(m)
}

// reason takes the words off an error that name the file once more.
func reason(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	if e, ok := errors.AsType[*exec.Error](err); ok {
		return reason(e.Err)
	}
	return err
}
