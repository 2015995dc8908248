// Package wire holds what both ends of the plugin protocol must agree on: the handshake, the limits, and the mapping
// between the words of package core and the frames of package pluginv1, each in one file and both directions side by
// side; and what carries the frames, a gRPC stream or pipes, as one kind of Stream.
package wire
