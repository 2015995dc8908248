// Command hostmetrics is a plugin of the Fairlead device runtime that sends figures of this machine. The runtime also
// has it built in: `builtin: hostmetrics`.
package main

import hostmetrics "github.com/fairlead-iot/fairlead/examples/hostmetrics/plugin"

func main() { hostmetrics.New().Serve() }
