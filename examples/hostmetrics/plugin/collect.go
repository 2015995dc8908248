package plugin

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/mem"
	"github.com/shirou/gopsutil/v4/net"
	"github.com/shirou/gopsutil/v4/sensors"
)

// The groups of figures that can be selected.
const (
	groupCPU         = "cpu"
	groupMemory      = "memory"
	groupDisks       = "disks"
	groupNetwork     = "network"
	groupTemperature = "temperature"
)

// cpuWindow is the shortest time, in seconds, over which the load is computed: the system counts in ticks of 10 ms.
const cpuWindow = 0.2

// groups returns all of them, in the order of a snapshot.
func groups() []string {
	return []string{groupCPU, groupMemory, groupDisks, groupNetwork, groupTemperature}
}

// Snapshot is one set of figures; groups that are not selected, or that this machine does not have, are left out.
type Snapshot struct {
	CPU          *CPU          `json:"cpu,omitempty"`
	Memory       *Memory       `json:"memory,omitempty"`
	Disks        []Disk        `json:"disks,omitempty"`
	Network      *Network      `json:"network,omitempty"`
	Temperatures []Temperature `json:"temperatures,omitempty"`
}

// CPU is the load of all cores together.
type CPU struct {
	// Percent is the busy share since the last snapshot, or the one before if that was a moment ago; since boot in the first.
	Percent float64 `json:"percent"`
	Cores   int     `json:"cores"`
}

// Memory is the use of main memory.
type Memory struct {
	TotalBytes     uint64  `json:"total_bytes"`
	AvailableBytes uint64  `json:"available_bytes"`
	UsedPercent    float64 `json:"used_percent"`
}

// Disk is the use of one file system.
type Disk struct {
	Path        string  `json:"path"`
	TotalBytes  uint64  `json:"total_bytes"`
	FreeBytes   uint64  `json:"free_bytes"`
	UsedPercent float64 `json:"used_percent"`
}

// Network is the traffic of all interfaces but loopback: since boot, and per second since the last snapshot.
type Network struct {
	SentBytes     uint64  `json:"sent_bytes"`
	ReceivedBytes uint64  `json:"received_bytes"`
	SentRate      float64 `json:"sent_bytes_per_second"`
	ReceivedRate  float64 `json:"received_bytes_per_second"`
}

// Temperature is what one sensor says.
type Temperature struct {
	Sensor  string  `json:"sensor"`
	Celsius float64 `json:"celsius"`
}

// collector takes snapshots. It remembers the last one's counters, since shares and rates are differences.
type collector struct {
	disks []string

	mu      sync.Mutex
	times   cpu.TimesStat
	percent float64
	sent    uint64
	recv    uint64
	counted time.Time // when sent and recv were read; zero before the first time
}

// take returns a snapshot of the selected groups. With an error the snapshot has what could be read.
func (c *collector) take(ctx context.Context, selected []string) (*Snapshot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := new(Snapshot)
	var errs []error
	for _, g := range selected {
		var err error
		switch g {
		case groupCPU:
			s.CPU, err = c.cpu(ctx)
		case groupMemory:
			s.Memory, err = memory(ctx)
		case groupDisks:
			s.Disks, err = c.usage(ctx)
		case groupNetwork:
			s.Network, err = c.network(ctx)
		case groupTemperature:
			s.Temperatures = temperatures(ctx)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("read %s: %w", g, err))
		}
	}
	return s, errors.Join(errs...)
}

func (c *collector) cpu(ctx context.Context) (*CPU, error) {
	all, err := cpu.TimesWithContext(ctx, false)
	if err != nil {
		return nil, err
	}
	cores, err := cpu.CountsWithContext(ctx, true)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, errors.New("no figures")
	}
	now, last := all[0], c.times
	idle := now.Idle + now.Iowait - last.Idle - last.Iowait
	if total := sum(now) - sum(last); total >= cpuWindow*float64(cores) {
		c.times, c.percent = now, round(100*max(0, total-idle)/total)
	}
	return &CPU{Percent: c.percent, Cores: cores}, nil
}

// sum is all the time that was counted. Guest time is in user time already.
func sum(t cpu.TimesStat) float64 {
	return t.User + t.System + t.Idle + t.Nice + t.Iowait + t.Irq + t.Softirq + t.Steal
}

func memory(ctx context.Context) (*Memory, error) {
	m, err := mem.VirtualMemoryWithContext(ctx)
	if err != nil {
		return nil, err
	}
	return &Memory{TotalBytes: m.Total, AvailableBytes: m.Available, UsedPercent: round(m.UsedPercent)}, nil
}

func (c *collector) usage(ctx context.Context) ([]Disk, error) {
	var disks []Disk
	var errs []error
	for _, path := range c.disks {
		u, err := disk.UsageWithContext(ctx, path)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
			continue
		}
		disks = append(disks, Disk{Path: path, TotalBytes: u.Total, FreeBytes: u.Free, UsedPercent: round(u.UsedPercent)})
	}
	return disks, errors.Join(errs...)
}

func (c *collector) network(ctx context.Context) (*Network, error) {
	interfaces, err := net.IOCountersWithContext(ctx, true)
	if err != nil {
		return nil, err
	}
	n := new(Network)
	for _, i := range interfaces {
		if i.Name == "lo" || i.Name == "lo0" {
			continue
		}
		n.SentBytes += i.BytesSent
		n.ReceivedBytes += i.BytesRecv
	}
	now := time.Now()
	if d := now.Sub(c.counted).Seconds(); !c.counted.IsZero() && d > 0 {
		n.SentRate, n.ReceivedRate = rate(n.SentBytes, c.sent, d), rate(n.ReceivedBytes, c.recv, d)
	}
	c.sent, c.recv, c.counted = n.SentBytes, n.ReceivedBytes, now
	return n, nil
}

// rate is 0 where a counter went back, as when an interface went away.
func rate(now, last uint64, seconds float64) float64 {
	if now < last {
		return 0
	}
	return round(float64(now-last) / seconds)
}

// temperatures returns what the sensors say. Most machines have none, and some of the errors are only warnings, so no
// sensors is no error.
func temperatures(ctx context.Context) []Temperature {
	all, _ := sensors.TemperaturesWithContext(ctx)
	var ts []Temperature
	for _, t := range all {
		if t.Temperature != 0 {
			ts = append(ts, Temperature{Sensor: t.SensorKey, Celsius: round(t.Temperature)})
		}
	}
	slices.SortFunc(ts, func(a, b Temperature) int { return strings.Compare(a.Sensor, b.Sensor) })
	return ts
}

// round keeps one decimal: more would be noise.
func round(v float64) float64 { return math.Round(v*10) / 10 }
