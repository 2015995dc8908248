package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
)

// proofLook is how often the files of a device's proof are looked at while it waits between attempts.
const proofLook = 2 * time.Second

// maxProof bounds what is read of such a file, in bytes.
const maxProof = 1 << 20

// rereadKey is a source of a key that a file holds. It is read for each connection: whoever replaces it does not have to
// restart anything. A text that is of no use is said, and the key before it stays.
type rereadKey struct {
	read func() (core.Secret, error)
	make func(key core.Secret) (core.CredentialSource, error)
	log  *slog.Logger

	key    core.Secret
	source core.CredentialSource
	said   string
}

// newRereadKey reads the key for the first time, when what is wrong is an error.
func newRereadKey(log *slog.Logger, read func() (core.Secret, error), makeSource func(key core.Secret) (core.CredentialSource, error)) (*rereadKey, error) {
	r := &rereadKey{read: read, make: makeSource, log: log}
	return r, r.reread()
}

func (r *rereadKey) reread() error {
	key, err := r.read()
	if err != nil {
		return err
	}
	if r.source != nil && key == r.key {
		return nil
	}
	source, err := r.make(key)
	if err != nil {
		return err
	}
	if r.source != nil {
		r.log.Info("the device's key was replaced")
	}
	r.key, r.source = key, source
	return nil
}

// Credential implements core.CredentialSource, which is called from one goroutine at a time.
func (r *rereadKey) Credential(ctx context.Context) (core.Credential, error) {
	said := ""
	if err := r.reread(); err != nil {
		if said = err.Error(); said != r.said {
			r.log.WarnContext(ctx, "the device's key cannot be read anew: the one before it stays", "error", err)
		}
	}
	r.said = said
	return r.source.Credential(ctx)
}

// rereadConnectionString reads the key of a connection string that names the same identity as it did at the start.
func rereadConnectionString(source config.Source, identity core.Identity) func() (core.Secret, error) {
	return func() (core.Secret, error) {
		text, err := source.Resolve()
		if err != nil {
			return "", err
		}
		cs, err := credentials.ParseConnectionString(text.Reveal())
		if err != nil {
			return "", err
		}
		if cs.Identity != identity || cs.X509 {
			return "", fmt.Errorf("the connection string from %s is another device's or hub's now: start again to change the identity", source)
		}
		return cs.Key, nil
	}
}

// proofFiles are the files by which a device proves who it is, and what they held when they were read last.
type proofFiles struct {
	paths []string

	mu   sync.Mutex
	seen [sha256.Size]byte
}

// filesOf lists what the identity's configuration names. The file of a ready token is watchToken's.
func filesOf(d *config.Device) *proofFiles {
	f := &proofFiles{}
	add := func(paths ...string) {
		for _, path := range paths {
			if path != "" {
				f.paths = append(f.paths, path)
			}
		}
	}
	add(d.ConnectionString.Path())
	if k := d.SymmetricKey; k != nil {
		add(k.Key.Path())
	}
	if x := d.X509; x != nil {
		add(x.CertFile, x.KeyFile, x.PassPhrase.Path())
	}
	if p := d.Provisioning; p != nil {
		add(p.SymmetricKey.Path(), p.GroupSymmetricKey.Path())
		if x := p.X509; x != nil {
			add(x.CertFile, x.KeyFile, x.PassPhrase.Path())
		}
	}
	return f
}

// digest is of what the files hold, or why they cannot be read.
func (f *proofFiles) digest() (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, path := range f.paths {
		_, _ = fmt.Fprintf(h, "%d:%s", len(path), path) // a hash takes all
		file, err := os.Open(path)                      //nolint:gosec // the configuration names it
		if err == nil {
			_, err = io.Copy(h, io.LimitReader(file, maxProof))
			_ = file.Close() // it was only read
		}
		if err != nil {
			_, _ = io.WriteString(h, err.Error()) // as above
		}
	}
	h.Sum(sum[:0])
	return sum
}

// note is called before the files are read to be used: what changes from then on is news.
func (f *proofFiles) note() {
	sum := f.digest()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = sum
}

// changed reports, once, that the files hold something else than was used last.
func (f *proofFiles) changed() bool {
	sum := f.digest()
	f.mu.Lock()
	defer f.mu.Unlock()
	isNew := sum != f.seen
	f.seen = sum
	return isNew
}

// noting notes what a source reads.
func (f *proofFiles) noting(source core.CredentialSource) core.CredentialSource {
	if len(f.paths) == 0 {
		return source
	}
	return notingSource{source, f}
}

type notingSource struct {
	source core.CredentialSource
	files  *proofFiles
}

// Credential implements core.CredentialSource.
func (n notingSource) Credential(ctx context.Context) (core.Credential, error) {
	n.files.note()
	return n.source.Credential(ctx)
}

// watchProof ends the wait for the next attempt when the files of the proof were replaced, until ctx ends. A device that is
// connected is left alone: it reads them for its next connection.
func (rt *running) watchProof(ctx context.Context) {
	if len(rt.proof.paths) == 0 {
		return
	}
	waits := make(chan bool, 1)
	defer rt.client.OnConnection(func(c core.Connection) {
		select { // the newest state alone counts
		case <-waits:
		default:
		}
		waits <- c.State == core.StateWaiting
	})()
	tick := time.NewTicker(proofLook)
	defer tick.Stop()
	tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case isWaiting := <-waits:
			if tick.Stop(); isWaiting {
				tick.Reset(proofLook)
			}
		case <-tick.C:
			if rt.proof.changed() {
				rt.log.Info("the files of the device's proof of identity were replaced: it tries again now")
				rt.client.Engine().CredentialChanged()
			}
		}
	}
}

// registrationKey says where the key of a registration stands, and reads it: a group's becomes the device's own.
func registrationKey(p *config.Provisioning) (position string, read func() (core.Secret, error)) {
	if p.GroupSymmetricKey.IsZero() {
		return "device.provisioning.symmetric_key", p.SymmetricKey.Resolve
	}
	return "device.provisioning.group_symmetric_key", func() (core.Secret, error) {
		key, err := p.GroupSymmetricKey.Resolve()
		if err != nil {
			return "", err
		}
		return credentials.DeriveKey(key, p.RegistrationID)
	}
}
