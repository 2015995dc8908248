// Package pluginv1 is the wire between the host and a plugin process, version 1: plugin.proto and the code generated
// from it.
//
// # Usage
//
// Only package host and package sdk speak it; authors of plugins import package sdk. plugin.proto is the text to read
// for whoever writes an SDK for another language: each frame's comment says who sends it, when, and what it costs.
//
// # Growth
//
// The file grows only by adding; a test compares it with what it was (testdata/wire.txtpb) and refuses the rest. A new
// frame or field that a sender relies on comes with a feature name, exchanged in Init.features and Register.features.
//
// # Generating
//
// go generate ./plugins/pluginv1, with the tools pinned in tools/go.mod; nothing has to be installed.
package pluginv1

//go:generate go tool -modfile=../../tools/go.mod buf lint
//go:generate go tool -modfile=../../tools/go.mod buf generate
