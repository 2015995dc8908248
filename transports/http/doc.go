// Package http is what a device says to its hub over HTTPS: where may a file be uploaded, how did that end, and what does
// another one of the Edge hub answer to a method. Besides it
// carries the requests to the storage behind the hub.
//
// # Usage
//
//	files, err := http.New(http.Config{Identity: id, Credentials: source})
//	info, err := files.StorageInfo(ctx, "logs/today.txt")
//	storage := http.NewStorage(http.StorageConfig{}) // an http.RoundTripper for https://{info.HostName}/…
//	err = files.NotifyUpload(ctx, core.UploadOutcome{CorrelationID: info.CorrelationID, Success: true, StatusCode: 201})
//	result, err := files.InvokeMethod(ctx, target, call, limit) // a module of IoT Edge, by its Edge hub
//
// # Concurrency
//
// Everything may be used from any goroutine. Each request takes a fresh credential from the source, which must allow calls
// from several goroutines (device sees to that), and a connection of its own: a certificate belongs to the connection.
//
// # Expected behaviour of the other side
//
// A hub answers 200 or 204, or an error status with a body in one of two forms and, in a header, the name of the error.
// Answers are read up to 64 KiB (a method's to 512), a request ends after 30 s (a method when its caller says). Nothing
// is tried again here: package uploads decides that, by the kind of the error (statusKinds) and Retry-After.
//
// A hub may ask for the client certificate only once it has seen the request: by a renegotiation, which exists up to
// TLS 1.2. So a device with a certificate speaks TLS 1.2 to its hub over HTTPS, and allows one renegotiation; to nobody else.
//
// # Debugging
//
// Errors are *core.Error with the phase (dns, tcp, proxy, tls, http), the status, Retry-After and the hub's tracking id.
//
// # Testing
//
// Against the embedded hub and scripted servers here; against Apache httpd, which renegotiates, in internal/interop.
package http //nolint:revive // it is the transport's name, and no importer needs both
