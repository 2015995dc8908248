package host

import (
	"encoding/json"
	"log/slog"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/plugins/internal/wire"
)

// Config describes one configured plugin.
type Config struct {
	// Name is the plugin's name in the configuration; it stands in every log line and error.
	Name string
	// Command is the program and its arguments; a program without a path separator is looked for in PATH. For a
	// built-in plugin it is left empty, and BuiltinArgs are the arguments of this very binary started again.
	Command     []string
	BuiltinArgs []string
	// Env is added to the few variables that a plugin inherits (see environment), and wins over them.
	Env map[string]string
	// Dir is the plugin's working directory; "" means the host's own.
	Dir string
	// RuntimeDir is where the directory of the plugin's socket is made, mode 0700, and removed with the plugin; what a
	// host that was killed has left there goes with the next start. It must not be shared with another host. "" means
	// the system's temporary directory, which also serves when RuntimeDir is too long for a socket's path.
	RuntimeDir string
	// Settings is one JSON object, handed to the plugin; nil means none.
	Settings json.RawMessage
	// Logger gets what the plugin logs and writes to stderr, and the host's own few lines; nil discards them.
	Logger *slog.Logger
	// Metric, if set, is told each observation that the plugin makes. It must not block, and may be called from any
	// goroutine.
	Metric func(Metric)
	// Files is what the plugin may do with files; nil means nothing.
	Files core.PluginFiles
	// StartTimeout bounds a start, from exec to the plugin's registration; 0 means 10 s.
	StartTimeout time.Duration
	// Ping sets the heartbeat; the zero value means every 3 s, 3 misses of 2 s.
	Ping Ping
}

// Ping says how a hung plugin is found: Misses pings in a row, one each Interval, had no answer within Timeout.
type Ping struct {
	Interval time.Duration
	Timeout  time.Duration
	Misses   int
}

// Metric is one observation that a plugin made.
type Metric struct {
	Plugin string // its name in the configuration
	Name   string
	// Counter says that Value is added; otherwise it is the current value.
	Counter bool
	Value   float64
	Labels  map[string]string
}

// New returns the launcher of one configured plugin. It does nothing until Launch.
func New(cfg Config) core.Launcher {
	return &launcher{cfg: cfg.withDefaults(), live: make(map[string]bool)}
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Logger = c.Logger.With("plugin", c.Name)
	if c.Metric == nil {
		c.Metric = func(Metric) {}
	}
	if c.StartTimeout == 0 {
		c.StartTimeout = wire.StartTimeout
	}
	if c.Ping.Interval == 0 {
		c.Ping.Interval = wire.PingInterval
	}
	if c.Ping.Timeout == 0 {
		c.Ping.Timeout = wire.PingTimeout
	}
	if c.Ping.Misses == 0 {
		c.Ping.Misses = wire.PingMisses
	}
	if len(c.Settings) == 0 {
		c.Settings = json.RawMessage("{}")
	}
	return c
}
