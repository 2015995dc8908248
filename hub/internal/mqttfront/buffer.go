package mqttfront

import "github.com/fairlead-iot/fairlead/hub/internal/iot"

// bufferSize is how large the reading buffer shall be: as the load wants it, and
// small again when that is over. need is the length of the packet that is under
// way, where it is known; full says that the last read filled the buffer.
func (c *conn) bufferSize(size, need int, full, rests bool) int {
	switch {
	case c.idle == 0 && full: // a stranger's word is not enough: as the bytes come
		return min(2*size, iot.MaxConnect)
	case c.idle != 0 && need > size:
		return need
	case c.idle != 0 && full:
		return max(size, min(2*size, maxBuffer))
	case rests:
		return minBuffer
	default:
		return size
	}
}
