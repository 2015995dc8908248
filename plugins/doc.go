// Package plugins is the boundary between the runtime and the device's business logic, which runs in processes of its
// own. Nothing is here but this text; the code is in the packages below.
//
//	plugins/pluginv1   the wire: plugin.proto and what is generated from it
//	plugins/host       launches one start of a plugin, watches it, carries calls: a core.Launcher
//	plugins/sdk        what a Go author imports: one import, one Serve
//	plugins/sdk/sdktest  a plugin tested without a process, behind the real wire and the real host
//
// # The boundary
//
// A plugin is a program that the runtime starts. Between them is one stream of frames: batches of messages one way, calls
// with deadlines the other, credit against floods. What carries it is agreed in go-plugin's handshake: a pair of pipes that
// the plugin inherits, or a gRPC stream with mutual TLS for plugins whose SDK is gRPC. A built-in plugin is the same binary
// started again, and comes through the same door.
//
// The host knows package core and nothing else of the runtime. What to do with a plugin that ended, which calls it gets
// and until when, is decided by the machine in core; the host reports facts: ready, answer, ended and why.
//
// # The life of a plugin
//
//  1. Checked: the file is there, regular, executable. What only an edit can mend is reported as core.Fatal.
//  2. Launched: a process group of its own, an environment by allow-list, a private socket directory.
//  3. Shaken hands with, and connected to: within 10 s in all, or it is killed.
//  4. Initialised: the host sends the identity and the settings; the plugin answers with its handlers, or with the
//     reason why it cannot run with these settings.
//  5. Working: messages up as far as credit goes, calls down, requests up, and a heartbeat every 3 s. A plugin that
//     answers three in a row with silence is killed, with all that it has started.
//  6. Drained: asked to finish, it ends its loop, answers open calls, sees its messages settled, and exits. After that
//     come the end of the stream, SIGTERM, and SIGKILL for the group, each with its share of the time given.
//  7. Over. A start that ended stays ended; the machine launches another.
//
// Neither a plugin that hangs, floods, or breaks the protocol, nor a grandchild that keeps its output open, makes the
// host wait: every wait on a plugin has a limit, and what is read from it is bounded by credit and rates.
//
// # Security
//
// A plugin is trusted to act for the device through the Device interface, and with nothing else of the host's:
//
//   - It gets no secret. The environment is PATH, HOME, LANG, LANGUAGE, LC_*, TZ, TMPDIR, what the configuration names, and
//     go-plugin's variables, which hold public certificates. No descriptor is handed to it but the three standard ones
//     and its pipes, which what it starts does not inherit.
//   - Nobody else can speak to it: pipes have no address. With gRPC its socket is in a directory of mode 0700, and both
//     sides prove themselves by certificates made for this one start. The magic cookie is a courtesy to people who start
//     it by hand, no security.
//   - What it sends is checked before it is used: sizes, numbers, credit, JSON, UTF-8. One bad message does not spoil
//     its batch; a breach of the protocol ends the plugin and nothing else.
//   - It dies with the host, whatever kills the host, and so does what it started (host.Limitations names the exceptions).
//
// It is not confined: it runs with the host's user and rights. Give the runtime a user of its own, and let the service
// manager take away what neither needs.
package plugins
