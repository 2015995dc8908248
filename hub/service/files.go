package service

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/fairlead-iot/fairlead/hub/api"
)

// Files lists what a device, or a module, has uploaded to the embedded hub.
func (c *Client) Files(ctx context.Context, id string) ([]api.File, error) {
	var out []api.File
	_, err := c.call(ctx, request{method: http.MethodGet, path: devicePath("/fairlead/devices", id) + "/files"}, &out)
	return out, err
}

// OpenFile reads an uploaded file from the embedded hub; name is without the
// device's id, and the size in bytes comes with it. The caller closes it.
func (c *Client) OpenFile(ctx context.Context, id, name string) (io.ReadCloser, int64, error) {
	resp, err := c.do(ctx, request{method: http.MethodGet, path: devicePath("/fairlead/devices", id) + "/files/content", query: url.Values{"name": {name}}})
	if err != nil {
		return nil, 0, err
	}
	return resp.Body, resp.ContentLength, nil
}

// WatchFileNotifications calls f for every file notification that waits at the
// embedded hub, without taking it. With follow it goes on with those that come,
// until the context ends, f returns an error (which it returns), or the hub
// closes (nil). device "" means all.
func (c *Client) WatchFileNotifications(ctx context.Context, device string, follow bool, f func(api.FileNotification) error) error {
	q := url.Values{"follow": {strconv.FormatBool(follow)}}
	if device != "" {
		q.Set("device", device)
	}
	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := c.do(reading, request{method: http.MethodGet, path: "/fairlead/files/notifications", query: q})
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // a stream that is given up
	lines := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil && ctx.Err() != nil {
			return fmt.Errorf("read file notifications: %w", ctx.Err())
		}
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read file notifications: %w", err)
		}
		var n api.FileNotification
		if err := json.Unmarshal(line, &n); err != nil {
			return fmt.Errorf("decode file notification: %w", err)
		}
		if err := f(n); err != nil {
			return err
		}
	}
}

// ReceiveFileNotification takes the oldest file notification under a lock of a
// minute; ok is false when none waits. A real hub has this over AMQP.
func (c *Client) ReceiveFileNotification(ctx context.Context) (n api.FileNotification, lock string, ok bool, err error) {
	resp, err := c.do(ctx, request{method: http.MethodGet, path: "/messages/serviceBound/filenotifications"})
	if err != nil {
		return n, "", false, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	if resp.StatusCode == http.StatusNoContent {
		return n, "", false, nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&n); err != nil {
		return n, "", false, fmt.Errorf("decode file notification: %w", err)
	}
	return n, strings.Trim(resp.Header.Get("ETag"), `"`), true, nil
}

// CompleteFileNotification removes what ReceiveFileNotification gave.
func (c *Client) CompleteFileNotification(ctx context.Context, lock string) error {
	_, err := c.call(ctx, request{method: http.MethodDelete, path: "/messages/serviceBound/filenotifications/" + url.PathEscape(lock)}, nil)
	return err
}

// AbandonFileNotification puts it back.
func (c *Client) AbandonFileNotification(ctx context.Context, lock string) error {
	_, err := c.call(ctx, request{method: http.MethodPost, path: "/messages/serviceBound/filenotifications/" + url.PathEscape(lock) + "/abandon"}, nil)
	return err
}
