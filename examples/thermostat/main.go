// Command thermostat is a plugin of the Fairlead device runtime.
package main

import thermostat "github.com/fairlead-iot/fairlead/examples/thermostat/plugin"

func main() { thermostat.New().Serve() }
