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
	// Certificate is asked of a device's certificate and its private key, PEM, and the key's pass phrase, "" for none.
	Certificate func(cert, key []byte, passPhrase core.Secret) error
}

// CheckFiles looks at what the configuration names outside itself: secrets, certificates, keys and programs. It uses no
// network and changes nothing.
func (c *Config) CheckFiles(v Verify) []Problem {
	k := checker{c: c}
	for _, s := range c.sources() {
		switch s.key {
		case "device.connection_string":
			k.secret(s.key, s.Source, v.ConnectionString)
		case "device.sastoken":
			k.secret(s.key, s.Source, v.SASToken)
		case "device.symmetric_key.key", "device.provisioning.symmetric_key", "device.provisioning.group_symmetric_key":
			k.secret(s.key, s.Source, v.Key)
		default:
			k.secret(s.key, s.Source, nil)
		}
	}
	if x := c.Device.X509; x != nil {
		k.certificate("device.x509", x.CertFile, x.KeyFile, x.PassPhrase, v.Certificate)
	}
	if p := c.Device.Provisioning; p != nil && p.X509 != nil {
		k.certificate("device.provisioning.x509", p.X509.CertFile, p.X509.KeyFile, p.X509.PassPhrase, v.Certificate)
	}
	k.pem("tls.server_verification_cert", c.TLS.ServerVerificationCert)
	k.pem("tls.extra_ca", c.TLS.ExtraCA)
	for _, p := range c.Plugins {
		k.program("plugins."+p.Name+".command[0]", p.Command)
	}
	k.stateDir()
	return sortProblems(k.problems, c.files)
}

// Warnings lists what is right but unwise or without effect: a secret as text in a file that others may read, the life of
// tokens where the device signs none, the waits before attempts where none are made.
func (c *Config) Warnings() []Problem {
	var out []Problem
	if d := &c.Device; c.IsSet("device.sastoken_ttl") && (!d.SASToken.IsZero() || d.X509 != nil) {
		out = append(out, c.Problem("device.sastoken_ttl", "has no effect: with this identity the device signs no token of its own"))
	}
	for _, key := range []string{"connection.connection_retry_interval", "connection.connection_retry_max"} {
		if !c.Connection.Retry && c.IsSet(key) {
			out = append(out, c.Problem(key, "has no effect: connection_retry is false, so that a lost connection is not made again"))
		}
	}
	for _, s := range c.sources() {
		if s.Text == "" {
			continue
		}
		file := c.Where(s.key).File
		if info, err := os.Stat(file); err == nil && !isPrivate(info) {
			out = append(out, c.Problem(s.key, "a secret stands in a file that others may read (mode %04o): chmod 600 %s, or name a file", info.Mode().Perm(), file))
		}
	}
	return out
}

type keyedSource struct {
	key string
	Source
}

// sources returns every secret's source, set or not.
func (c *Config) sources() []keyedSource {
	d := &c.Device
	out := []keyedSource{{"device.connection_string", d.ConnectionString}, {"device.sastoken", d.SASToken}}
	if d.SymmetricKey != nil {
		out = append(out, keyedSource{"device.symmetric_key.key", d.SymmetricKey.Key})
	}
	if d.X509 != nil {
		out = append(out, keyedSource{"device.x509.pass_phrase", d.X509.PassPhrase})
	}
	if p := d.Provisioning; p != nil {
		out = append(out, keyedSource{"device.provisioning.symmetric_key", p.SymmetricKey}, keyedSource{"device.provisioning.group_symmetric_key", p.GroupSymmetricKey})
		if p.X509 != nil {
			out = append(out, keyedSource{"device.provisioning.x509.pass_phrase", p.X509.PassPhrase})
		}
	}
	for i, t := range c.Transports {
		out = append(out, keyedSource{itemKey("transports", i) + ".proxy_options.proxy_password", t.Proxy.Password})
	}
	return append(out, keyedSource{"uploads.proxy_options.proxy_password", c.Uploads.Proxy.Password})
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

func (k *checker) certificate(key, certFile, keyFile string, pass Source, verify func(cert, key []byte, pass core.Secret) error) {
	if certFile == "" || keyFile == "" {
		return // said already
	}
	private, err := ReadKeyFile(keyFile)
	if err != nil {
		k.add(key+".key_file", err)
		return
	}
	cert := private // both in one file is fine, and then it is private
	if certFile != keyFile {
		if cert, err = (PEM{File: certFile}).Read(); err != nil {
			k.add(key+".cert_file", err)
			return
		}
	}
	if verify == nil {
		return
	}
	var phrase core.Secret
	if !pass.IsZero() {
		if phrase, err = pass.Resolve(); err != nil {
			return // said where the pass phrase stands
		}
	}
	if err := verify(cert, private, phrase); err != nil {
		k.add(key, err)
	}
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
			k.add(key, fmt.Errorf("find program %s: it is not in PATH", name))
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
			} else if !mayWrite(dir) {
				k.add("state_dir", fmt.Errorf("this user may not write to %s: chown it, or name another directory", dir))
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
