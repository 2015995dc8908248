package service

import (
	"context"
	"net/http"
	"net/url"

	"github.com/fairlead-iot/fairlead/hub/api"
)

// The provisioning service has its own version, and these roots of resources.
// https://learn.microsoft.com/rest/api/iot-dps/service
const (
	provisioningVersion = "2021-10-01"

	enrollmentRoot   = "/enrollments/"
	groupRoot        = "/enrollmentGroups/"
	registrationRoot = "/registrations/"
)

// provisioning is call with the provisioning service's version.
func (c *Client) provisioning(ctx context.Context, r request, into any) (http.Header, error) {
	r.query = url.Values{"api-version": {provisioningVersion}}
	return c.call(ctx, r, into)
}

// IDScope returns the id scope that devices have to name; the embedded hub only.
func (c *Client) IDScope(ctx context.Context) (string, error) {
	var out struct {
		IDScope string `json:"idScope"`
	}
	_, err := c.provisioning(ctx, request{method: http.MethodGet, path: "/fairlead/provisioning"}, &out)
	return out.IDScope, err
}

// PutEnrollment creates an enrollment, or with replace updates one whatever its
// entity tag. It returns the enrollment with its keys.
func (c *Client) PutEnrollment(ctx context.Context, e api.Enrollment, replace bool) (api.Enrollment, error) {
	var out api.Enrollment
	err := c.put(ctx, enrollmentRoot, e.RegistrationID, e, replace, &out)
	return out, err
}

// PutEnrollmentGroup is PutEnrollment for a group.
func (c *Client) PutEnrollmentGroup(ctx context.Context, g api.EnrollmentGroup, replace bool) (api.EnrollmentGroup, error) {
	var out api.EnrollmentGroup
	err := c.put(ctx, groupRoot, g.EnrollmentGroupID, g, replace, &out)
	return out, err
}

func (c *Client) put(ctx context.Context, root, id string, body any, replace bool, into any) error {
	r := request{method: http.MethodPut, path: root + url.PathEscape(id), body: body}
	if replace {
		r.ifMatch = `"*"`
	}
	_, err := c.provisioning(ctx, r, into)
	return err
}

// Enrollment returns an enrollment with its registration, without its keys.
func (c *Client) Enrollment(ctx context.Context, registrationID string) (api.Enrollment, error) {
	var out api.Enrollment
	_, err := c.provisioning(ctx, request{method: http.MethodGet, path: enrollmentRoot + url.PathEscape(registrationID)}, &out)
	return out, err
}

// EnrollmentGroup returns a group without its keys.
func (c *Client) EnrollmentGroup(ctx context.Context, id string) (api.EnrollmentGroup, error) {
	var out api.EnrollmentGroup
	_, err := c.provisioning(ctx, request{method: http.MethodGet, path: groupRoot + url.PathEscape(id)}, &out)
	return out, err
}

// EnrollmentKeys returns how a device of the enrollment proves who it is, keys
// included.
func (c *Client) EnrollmentKeys(ctx context.Context, registrationID string) (api.Attestation, error) {
	return c.attestation(ctx, enrollmentRoot, registrationID)
}

// EnrollmentGroupKeys is EnrollmentKeys for a group.
func (c *Client) EnrollmentGroupKeys(ctx context.Context, id string) (api.Attestation, error) {
	return c.attestation(ctx, groupRoot, id)
}

func (c *Client) attestation(ctx context.Context, root, id string) (api.Attestation, error) {
	var out api.Attestation
	_, err := c.provisioning(ctx, request{method: http.MethodPost, path: root + url.PathEscape(id) + "/attestationmechanism"}, &out)
	return out, err
}

// Enrollments returns every single enrollment, without keys.
func (c *Client) Enrollments(ctx context.Context) ([]api.Enrollment, error) {
	return queryAll[api.Enrollment](ctx, c, enrollmentRoot+"query")
}

// EnrollmentGroups returns every group, without keys.
func (c *Client) EnrollmentGroups(ctx context.Context) ([]api.EnrollmentGroup, error) {
	return queryAll[api.EnrollmentGroup](ctx, c, groupRoot+"query")
}

// Registrations returns what became of the devices that a group let in.
func (c *Client) Registrations(ctx context.Context, group string) ([]api.RegistrationState, error) {
	return queryAll[api.RegistrationState](ctx, c, registrationRoot+url.PathEscape(group)+"/query")
}

// queryAll asks for page after page.
func queryAll[T any](ctx context.Context, c *Client, path string) ([]T, error) {
	r := request{method: http.MethodPost, path: path, body: map[string]string{"query": "*"}, header: http.Header{}}
	all := []T{}
	for {
		var page []T
		header, err := c.provisioning(ctx, r, &page)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		next := header.Get("x-ms-continuation")
		if next == "" {
			return all, nil
		}
		r.header.Set("x-ms-continuation", next)
	}
}

// Registration returns what became of a device's registration.
func (c *Client) Registration(ctx context.Context, registrationID string) (api.RegistrationState, error) {
	var out api.RegistrationState
	_, err := c.provisioning(ctx, request{method: http.MethodGet, path: registrationRoot + url.PathEscape(registrationID)}, &out)
	return out, err
}

// DeleteRegistration forgets a registration: the device's next one is its first.
func (c *Client) DeleteRegistration(ctx context.Context, registrationID string) error {
	return c.delete(ctx, registrationRoot, registrationID)
}

// DeleteEnrollment removes an enrollment; the device stays in the registry.
func (c *Client) DeleteEnrollment(ctx context.Context, registrationID string) error {
	return c.delete(ctx, enrollmentRoot, registrationID)
}

// DeleteEnrollmentGroup removes a group; its devices stay in the registry.
func (c *Client) DeleteEnrollmentGroup(ctx context.Context, id string) error {
	return c.delete(ctx, groupRoot, id)
}

func (c *Client) delete(ctx context.Context, root, id string) error {
	_, err := c.provisioning(ctx, request{method: http.MethodDelete, path: root + url.PathEscape(id)}, nil)
	return err
}
