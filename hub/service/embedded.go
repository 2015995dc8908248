package service

import (
	"context"
	"net/http"
	"net/url"

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
