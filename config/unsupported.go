package config

// Unsupported lists what the configuration asks for and this version cannot do yet. Such a configuration is right, and
// a later version takes it as it stands; a runtime must refuse to start with it rather than do something else.
func (c *Config) Unsupported() []Problem {
	var out []Problem
	add := func(key, format string, args ...any) {
		p := c.Problem(key, format, args...)
		p.Text += ": this version cannot do that yet"
		out = append(out, p)
	}
	o := &c.Outbox
	if o.Mode == "disk" {
		add("outbox.mode", "an outbox on disk (write mode: memory meanwhile)")
	} else {
		if o.OnFull != "block" {
			add("outbox.on_full", "%s in memory (write block meanwhile)", o.OnFull)
		}
		if o.MaxAge != 0 {
			add("outbox.max_age", "a limit of age in memory")
		}
	}
	if c.Log.Format == "journald" {
		add("log.format", "a log to journald (write text meanwhile: systemd takes stderr)")
	}
	return out
}
