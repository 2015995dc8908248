package main

import (
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-iot/fairlead/hub"
)

// hubUploadFlags say where devices upload files to.
type hubUploadFlags struct {
	life      time.Duration
	container string
	account   string
	ca        string
}

func (f *hubUploadFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.DurationVar(&f.life, "upload-life", time.Hour, "how long the address of a file upload is good, up to 24h")
	flags.StringVar(&f.container, "upload-container", hub.DefaultContainer, "container that files are uploaded to")
	flags.StringVar(&f.account, "storage-connection-string", "", "@FILE that holds the connection string of a storage account, Azure's or an Azurite with HTTPS, to upload to instead of the hub itself")
	flags.StringVar(&f.ca, "storage-ca", "", "PEM file with an authority that the storage account's certificate may come from, beside the system's")
}

// settings reads the files that the flags name.
func (f *hubUploadFlags) settings() (hub.Uploads, error) {
	u := hub.Uploads{Life: f.life, Container: f.container}
	if f.life <= 0 {
		return u, usagef("--upload-life %v is not more than 0", f.life)
	}
	if f.account != "" {
		name, ok := strings.CutPrefix(f.account, "@")
		if !ok {
			return u, usagef("--storage-connection-string must be @FILE: the text itself would be visible to other users of this machine")
		}
		text, err := os.ReadFile(name) //nolint:gosec // the user names it
		if err != nil {
			return u, usagef("read --storage-connection-string: %w", err)
		}
		if u.StorageConnectionString = strings.TrimSpace(string(text)); u.StorageConnectionString == "" {
			return u, usagef("--storage-connection-string: %s is empty", name)
		}
	}
	if f.ca != "" {
		var err error
		if u.StorageCAPEM, err = os.ReadFile(f.ca); err != nil {
			return u, usagef("read --storage-ca: %w", err)
		}
	}
	if err := u.Check(); err != nil {
		return u, usageError(err)
	}
	return u, nil
}
