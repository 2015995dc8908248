package credentials

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// The variables that the IoT Edge runtime gives a module.
// https://github.com/Azure/iotedge/blob/main/doc/devguide.md
const (
	edgeHostname   = "IOTEDGE_IOTHUBHOSTNAME"
	edgeDeviceID   = "IOTEDGE_DEVICEID"
	edgeModuleID   = "IOTEDGE_MODULEID"
	edgeGateway    = "IOTEDGE_GATEWAYHOSTNAME"
	edgeGeneration = "IOTEDGE_MODULEGENERATIONID"
	edgeWorkload   = "IOTEDGE_WORKLOADURI"
	edgeAPIVersion = "IOTEDGE_APIVERSION"
	// For a module that runs on a developer's machine, without the IoT Edge runtime.
	edgeDebugString = "EdgeHubConnectionString"
	edgeDebugCA     = "EdgeModuleCACertificateFile"
)

// EdgeEnvironment is what the environment says of an IoT Edge module: either Workload is set, or Key and CAFile are.
type EdgeEnvironment struct {
	// Identity names the module; its Gateway is the Edge hub.
	Identity core.Identity
	// Workload signs and vouches for the module.
	Workload *Workload
	// Key is the module's own, base64, and CAFile holds the Edge hub's authority, PEM: the developer's variables.
	Key    core.Secret
	CAFile string
}

// ReadEdgeEnvironment reads the variables that the IoT Edge runtime gives a module, or where they are not complete the
// developer's, EdgeHubConnectionString and EdgeModuleCACertificateFile. getenv is os.Getenv. Its error wraps
// core.ErrInvalid and names what is missing.
func ReadEdgeEnvironment(getenv func(string) string) (EdgeEnvironment, error) {
	e, err := readEdgeEnvironment(getenv)
	if err != nil {
		return EdgeEnvironment{}, fmt.Errorf("read the IoT Edge environment: %w: %w", err, core.ErrInvalid)
	}
	return e, nil
}

func readEdgeEnvironment(getenv func(string) string) (EdgeEnvironment, error) {
	var e EdgeEnvironment
	needed := []string{edgeHostname, edgeDeviceID, edgeModuleID, edgeGateway, edgeGeneration, edgeWorkload}
	missing := slices.DeleteFunc(slices.Clone(needed), func(name string) bool { return getenv(name) != "" })
	if len(missing) == 0 {
		e.Identity = core.Identity{
			Hostname: getenv(edgeHostname), DeviceID: getenv(edgeDeviceID), ModuleID: getenv(edgeModuleID), Gateway: getenv(edgeGateway),
		}
		if err := CheckIdentity(e.Identity); err != nil {
			return e, err
		}
		w, err := NewWorkload(getenv(edgeWorkload), getenv(edgeAPIVersion), e.Identity.ModuleID, getenv(edgeGeneration))
		e.Workload = w
		return e, err
	}
	text, file := getenv(edgeDebugString), getenv(edgeDebugCA)
	switch {
	case len(missing) < len(needed):
		return e, fmt.Errorf("%s missing; the IoT Edge runtime sets all of %s", isOrAre(missing), strings.Join(needed, ", "))
	case text == "" && file == "":
		return e, fmt.Errorf("this process was not started by the IoT Edge runtime: %s missing; to run a module without it set %s and %s",
			isOrAre(missing), edgeDebugString, edgeDebugCA)
	case text == "" || file == "":
		return e, fmt.Errorf("%s and %s belong together: set both", edgeDebugString, edgeDebugCA)
	}
	cs, err := ParseConnectionString(text)
	if err != nil {
		return e, fmt.Errorf("%s: %w", edgeDebugString, err)
	}
	if cs.Identity.ModuleID == "" || cs.Identity.Gateway == "" || cs.X509 {
		return e, fmt.Errorf("%s: it must name ModuleId, GatewayHostName and SharedAccessKey", edgeDebugString)
	}
	e.Identity, e.Key, e.CAFile = cs.Identity, cs.Key, file
	return e, nil
}

func isOrAre(names []string) string {
	if len(names) == 1 {
		return names[0] + " is"
	}
	return strings.Join(names, ", ") + " are"
}

// Source returns the source of the module's credentials: SAS tokens, signed by the workload API or the developer's key.
func (e EdgeEnvironment) Source(ttl time.Duration, now func() time.Time) (core.CredentialSource, error) {
	if e.Workload == nil {
		return NewSharedKey(e.Identity, e.Key, ttl, now)
	}
	if err := CheckTTL(ttl); err != nil {
		return nil, fmt.Errorf("make IoT Edge credential: %w", err)
	}
	if now == nil {
		return nil, fmt.Errorf("make IoT Edge credential: no clock: %w", core.ErrInvalid)
	}
	return &sharedKey{resource: Resource(e.Identity), sign: e.Workload.Sign, ttl: ttl.Truncate(time.Second), now: now}, nil
}

// caFile reads the developer's file.
func (e EdgeEnvironment) caFile() ([]byte, error) {
	text, err := os.ReadFile(e.CAFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", edgeDebugCA, err)
	}
	if len(text) == 0 {
		return nil, errors.New(edgeDebugCA + ": the file is empty")
	}
	return text, nil
}
