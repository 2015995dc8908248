//go:build !race

package mqttws

// isRace says that the race detector watches, which a defect of gorilla's own must not disturb.
const isRace = false
