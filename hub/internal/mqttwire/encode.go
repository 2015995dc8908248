package mqttwire

import "encoding/binary"

// AppendConnack appends CONNACK with a return code of section 3.2.2.3.
// sessionPresent is written only with code 0, [MQTT-3.2.2-4].
func AppendConnack(dst []byte, sessionPresent bool, code byte) []byte {
	flags := byte(0)
	if sessionPresent && code == 0 {
		flags = 1
	}
	return append(dst, byte(Connack)<<4, 2, flags, code)
}

// AppendPublish appends PUBLISH. id is written when qos is above 0. The topic
// must be at most 65535 bytes, and the packet below 256 MiB.
func AppendPublish(dst []byte, topic string, payload []byte, qos byte, dup bool, id uint16) []byte {
	first := byte(Publish)<<4 | qos<<1
	if dup {
		first |= 8
	}
	length := 2 + len(topic) + len(payload)
	if qos > 0 {
		length += 2
	}
	dst = append(dst, first)
	dst = appendLength(dst, length)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(topic))) //nolint:gosec // the caller keeps topics short
	dst = append(dst, topic...)
	if qos > 0 {
		dst = binary.BigEndian.AppendUint16(dst, id)
	}
	return append(dst, payload...)
}

// AppendPuback appends PUBACK.
func AppendPuback(dst []byte, id uint16) []byte {
	return append(dst, byte(Puback)<<4, 2, byte(id>>8), byte(id))
}

// AppendSuback appends SUBACK; codes are the granted QoS of each filter in order,
// or 0x80 for a refusal.
func AppendSuback(dst []byte, id uint16, codes []byte) []byte {
	dst = append(dst, byte(Suback)<<4)
	dst = appendLength(dst, 2+len(codes))
	dst = binary.BigEndian.AppendUint16(dst, id)
	return append(dst, codes...)
}

// AppendUnsuback appends UNSUBACK.
func AppendUnsuback(dst []byte, id uint16) []byte {
	return append(dst, byte(Unsuback)<<4, 2, byte(id>>8), byte(id))
}

// AppendPingresp appends PINGRESP.
func AppendPingresp(dst []byte) []byte {
	return append(dst, byte(Pingresp)<<4, 0)
}

func appendLength(dst []byte, n int) []byte {
	for {
		b := byte(n & 0x7f)
		n >>= 7
		if n == 0 {
			return append(dst, b)
		}
		dst = append(dst, b|0x80)
	}
}
