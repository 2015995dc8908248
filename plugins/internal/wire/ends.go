package wire

import (
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
)

// HostPipe is the host's end of a pair of pipes: requests go out, responses come in.
type HostPipe struct {
	*Pipe[pluginv1.SessionRequest, pluginv1.SessionResponse, *pluginv1.SessionRequest, *pluginv1.SessionResponse]
}

// PluginPipe is the plugin's end.
type PluginPipe struct {
	*Pipe[pluginv1.SessionResponse, pluginv1.SessionRequest, *pluginv1.SessionResponse, *pluginv1.SessionRequest]
}

var (
	_ Stream[*pluginv1.SessionRequest, *pluginv1.SessionResponse] = HostPipe{}
	_ Stream[*pluginv1.SessionResponse, *pluginv1.SessionRequest] = PluginPipe{}
)

// NewHostPipe takes conn over.
func NewHostPipe(conn io.ReadWriteCloser) HostPipe {
	return HostPipe{NewPipe[pluginv1.SessionRequest, pluginv1.SessionResponse](conn)}
}

// NewPluginPipe takes conn over.
func NewPluginPipe(conn io.ReadWriteCloser) PluginPipe {
	return PluginPipe{NewPipe[pluginv1.SessionResponse, pluginv1.SessionRequest](conn)}
}

// Recv returns the next frame. Ended becomes what the end of a gRPC stream would be: io.EOF, or the status ABORTED.
func (s HostPipe) Recv() (*pluginv1.SessionResponse, error) {
	f, err := s.Pipe.Recv()
	if err != nil {
		return nil, err
	}
	if e, ok := f.GetFrame().(*pluginv1.SessionResponse_Ended); ok {
		if reason := e.Ended.GetReason(); reason != "" {
			return nil, status.Error(codes.Aborted, reason)
		}
		return nil, io.EOF
	}
	return f, nil
}
