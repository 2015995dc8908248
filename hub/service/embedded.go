package service

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/fairlead-iot/fairlead/hub/api"
)

// AddCA registers a certificate authority, in PEM, for devices of the type
// api.AuthCA. The embedded hub only: a real one takes it by "az iot hub
// certificate create".
func (c *Client) AddCA(ctx context.Context, name string, certificate []byte) (api.CA, error) {
	var out api.CA
	body := map[string]string{"certificate": string(certificate)}
	_, err := c.call(ctx, request{method: http.MethodPut, path: "/fairlead/cas/" + url.PathEscape(name), body: body}, &out)
	return out, err
}

// CAs lists the certificate authorities of the embedded hub.
func (c *Client) CAs(ctx context.Context) ([]api.CA, error) {
	var out []api.CA
	_, err := c.call(ctx, request{method: http.MethodGet, path: "/fairlead/cas"}, &out)
	return out, err
}

// RemoveCA forgets a certificate authority of the embedded hub.
func (c *Client) RemoveCA(ctx context.Context, name string) error {
	_, err := c.call(ctx, request{method: http.MethodDelete, path: "/fairlead/cas/" + url.PathEscape(name)}, nil)
	return err
}

// ReceiveFeedback locks the feedback on cloud-to-device messages that waits, for
// 60 s, and gives it; nil when there is none.
// https://learn.microsoft.com/rest/api/iothub/service/feedback
func (c *Client) ReceiveFeedback(ctx context.Context) (*api.FeedbackBatch, error) {
	resp, err := c.do(ctx, request{method: http.MethodGet, path: "/messages/serviceBound/feedback"})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	if resp.StatusCode == http.StatusNoContent {
		return nil, nil
	}
	batch := &api.FeedbackBatch{Lock: strings.Trim(resp.Header.Get("ETag"), `"`)}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&batch.Records); err != nil {
		return nil, fmt.Errorf("decode feedback: %w", err)
	}
	return batch, nil
}

// CompleteFeedback removes a batch that ReceiveFeedback gave.
func (c *Client) CompleteFeedback(ctx context.Context, lock string) error {
	_, err := c.call(ctx, request{method: http.MethodDelete, path: "/messages/serviceBound/feedback/" + url.PathEscape(lock)}, nil)
	return err
}
