package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/internal/control"
	"github.com/fairlead-iot/fairlead/store"
	"github.com/fairlead-iot/fairlead/transports/http"
	"github.com/fairlead-iot/fairlead/transports/netdial"
	"github.com/fairlead-iot/fairlead/uploads"
)

// uploadDir holds the queue of uploads, within the state directory; spoolDir what plugins stream.
const (
	uploadDir = "uploads"
	spoolDir  = "uploads/streams"
)

// uploads says how files are uploaded. trust is for the hub; storage accounts are checked against the roots and extra_ca.
func (rt *running) uploads(cfg *device.Config, trust netdial.TLSConfig) error {
	c := rt.cfg
	port, address := httpsEndpoint(c)
	spool := filepath.Join(c.StateDir, spoolDir)
	if err := os.MkdirAll(spool, 0o700); err != nil {
		return fmt.Errorf("make the directory of uploads: %w", err)
	}
	proxy, err := uploadsProxy(c)
	if err != nil {
		return err
	}
	storage, err := http.NewStorage(http.StorageConfig{TLS: trust, Proxy: proxy, Connections: c.Uploads.Files * c.Uploads.Blocks, Now: rt.clock.Now})
	if err != nil {
		return configProblem(c, "uploads", err)
	}
	cfg.Files = func(id core.Identity, source core.CredentialSource) (core.FileService, error) {
		client, err := http.New(http.Config{
			Identity: id, Credentials: source, UserAgent: userAgent(), ProductInfo: c.Device.ProductInfo,
			Port: port, Address: address, TLS: trust, Proxy: proxy, Now: rt.clock.Now,
		})
		if err != nil {
			return nil, configProblem(c, "uploads", err)
		}
		return client, nil
	}
	keep := store.Uploads{
		Dir: filepath.Join(c.StateDir, uploadDir), Report: func(err error) { rt.log.Error("an upload is left out", "error", err) },
	}
	cfg.Uploads = &uploads.Config{
		Storage: storage, Keep: keep, Spool: spool, SpoolMax: c.Uploads.MaxStreams,
		Blocks: c.Uploads.Blocks, Parallel: c.Uploads.Files, Bandwidth: c.Uploads.Bandwidth,
	}
	return nil
}

// httpsEndpoint says where the hub's HTTPS is. Where neither the port nor the address is given they are those of the first
// route by WebSocket, which is on the same port.
func httpsEndpoint(c *config.Config) (port int, address string) {
	if !c.IsSet("uploads.port") && !c.IsSet("uploads.address") {
		for _, t := range c.Transports {
			if t.Use == config.UseWebSocket {
				return cmp.Or(t.Port, c.Uploads.Port), t.Address
			}
		}
	}
	return c.Uploads.Port, c.Uploads.Address
}

// uploadsProxy makes the proxy of uploads. Where none is named, not even "none", it is the one of the first route by
// WebSocket, else of the first route: a device that has a proxy must not go past it unasked.
func uploadsProxy(c *config.Config) (netdial.Proxy, error) {
	if c.IsSet("uploads.proxy_options") {
		return makeProxy(c, "uploads.proxy_options", c.Uploads.Proxy)
	}
	i := slices.IndexFunc(c.Transports, func(t config.Transport) bool { return t.Use == config.UseWebSocket })
	return routeProxy(c, max(i, 0))
}

// Upload implements control.Backend.
func (rt *running) Upload(ctx context.Context, r control.NewUpload) (control.Upload, error) {
	u, err := rt.client.Uploads().Add(ctx, core.UploadRequest{Path: r.Path, BlobName: r.Name})
	return control.UploadOf(u), err
}

// UploadState implements control.Backend.
func (rt *running) UploadState(id string) (control.Upload, <-chan struct{}, error) {
	u, changed, err := rt.client.Uploads().Get(id)
	return control.UploadOf(u), changed, err
}

// CancelUpload implements control.Backend.
func (rt *running) CancelUpload(id string) error {
	return rt.client.Uploads().Cancel(id, "cancelled by the operator")
}

// door is a plugin's way to the queue, which is there once the device is put together: plugins start before.
func (rt *running) door(name string, dirs []string) *uploads.Door {
	return &uploads.Door{Owner: name, Dirs: dirs, Open: func(ctx context.Context) (*uploads.Queue, error) {
		select {
		case <-rt.assembled:
			return rt.client.Uploads(), nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}}
}

func (rt *running) uploadList() []control.Upload {
	out := []control.Upload{}
	for _, u := range rt.client.Uploads().List() {
		out = append(out, control.UploadOf(u))
	}
	return out
}
