// Package mqttwire is the hub's own MQTT 3.1.1 codec: what a hub reads and what
// it writes, strict, and nothing else.
//
// # Usage
//
// Frame says where the first packet of a buffer ends, before any of it is
// trusted or copied; Decode parses exactly one packet. The Append functions
// write the packets that a hub sends.
//
//	total, err := mqttwire.Frame(buf, limit)   // total 0: read more
//	p, err := mqttwire.Decode(buf[:total])
//
// # Concurrency
//
// Everything is a pure function. A Packet's byte slices alias the frame: they
// are valid as long as the caller leaves the buffer alone.
//
// # Expected behaviour of the other side
//
// Every violation of a MUST of MQTT 3.1.1
// (https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/os/mqtt-v3.1.1-os.html) is an
// error; the caller closes the connection, as section 4.8 demands. Packets that
// only a hub may send, and those of QoS 2, are errors too.
//
// # Debugging
//
// Errors wrap ErrMalformed, ErrTooLarge or ErrProtocol and name the field. They
// never contain a user name or a password.
//
// # Testing
//
// FuzzDecode proves that no input panics and that what is decoded can be written
// again to the same bytes. FuzzDifferential reads streams with this codec, paho's
// and mochi's, packet by packet, and FuzzEncode has them read what this one writes:
// differences are deliberate, or errors. The client's library is no part of this
// package: one wrong belief must not hide on both sides.
package mqttwire
