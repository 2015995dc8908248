// Package config reads the configuration of a device into one plain struct.
//
// # Usage
//
// [Load] reads a file and what overrides it, each layer over the one before:
//
//	defaults < file < conf.d < environment < --set
//
// The file is YAML, TOML or JSON, told by its extension. conf.d is a directory beside it: for a file called fairlead.yaml
// it is called conf.d, for any other it is the file's own name with .d in place of the extension (gw.yaml, gw.d). Its
// files with the extensions .yaml, .yml, .toml and .json are read in the order of their names. Sections merge key by key;
// lists, secrets' sources, proxies and what a user names freely (match, env, settings) are replaced as a whole. A
// variable FAIRLEAD__CONNECTION__KEEP_ALIVE overrides connection.keep_alive; only keys that the schema allows can be
// overridden so, and an unknown name is an error. Secrets come by file, systemd credential or named variable, see
// [Source]. Relative names of files are relative to the file that holds them.
//
// Everything is strict: an unknown key, a wrong type, a value out of range and a duplicate are errors, and [Error] holds
// all of them, each with its place. A configuration may be right and still ask for what this version cannot do;
// [Config.Unsupported] lists that. [Config.CheckFiles] looks at the files that a configuration names.
//
// What a key means, may hold and is when left out stands in one table, schema.go. [Explain] and [JSONSchema] print it.
// To add a key: a field of [Config] with a koanf tag, its line in the table, and, while it does nothing yet, a line in
// Unsupported.
//
// # Concurrency
//
// Load keeps no state between calls and may run in several goroutines. A Config is not changed after Load returns; all
// may read it.
//
// # Expected behaviour of the other side
//
// The files are written by people, who mistype; by provisioning tools, which replace them by renaming; and possibly by
// an attacker. No input makes Load panic, and limits on size, depth and number of values (node.go) bound what it costs.
// Files may change at any time: Load reads each once, and Source.Resolve anew each time.
//
// # Debugging
//
// `fairlead check -c FILE` prints every problem, `fairlead config explain KEY` what a key means.
//
// # Testing
//
// testdata/broken holds one configuration a file with the exact text of its problems beside it; go test -update writes
// the texts anew. A fuzz test feeds all three parsers.
package config
