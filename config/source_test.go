//go:build unix

package config_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/core"
)

func writeFile(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestResolveReadsEachSource(t *testing.T) {
	t.Setenv("DEVICE_CS", "from-env")
	t.Setenv("CREDENTIALS_DIRECTORY", filepath.Dir(writeFile(t, "device_cs", "from-systemd\n", 0o440)))
	file := writeFile(t, "cs", "from-file\r\n", 0o600)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		source config.Source
		want   string
	}{
		{"text", config.Source{Text: "from-text"}, "from-text"},
		{"variable", config.Source{Env: "DEVICE_CS"}, "from-env"},
		{"credential, which systemd may open to a group", config.Source{Credential: "device_cs"}, "from-systemd"},
		{"file without its newline", config.Source{File: file}, "from-file"},
		{"symbolic link, as in Kubernetes", config.Source{File: link}, "from-file"},
		{"read-only file", config.Source{File: writeFile(t, "ro", "s", 0o400)}, "s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.source.Resolve()
			if err != nil || got.Reveal() != tt.want {
				t.Errorf("Resolve() = %q, %v, want %q", got.Reveal(), err, tt.want)
			}
		})
	}
}

func TestResolveRefuses(t *testing.T) {
	t.Setenv("EMPTY_CS", "")
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	open := func(mode os.FileMode) config.Source { return config.Source{File: writeFile(t, "cs", "c2VjcmV0", mode)} }
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		source config.Source
		want   string // %s is the file
	}{
		{"readable by all", open(0o644), "read %[1]s: others may use it (mode 0644): chmod 600 %[1]s"},
		{"readable by the group", open(0o640), "read %[1]s: others may use it (mode 0640): chmod 600 %[1]s"},
		{"writable by the group", open(0o620), "read %[1]s: others may use it (mode 0620): chmod 600 %[1]s"},
		{"writable by all", open(0o602), "read %[1]s: others may use it (mode 0602): chmod 600 %[1]s"},
		{"executable by all", open(0o701), "read %[1]s: others may use it (mode 0701): chmod 600 %[1]s"},
		{"missing", config.Source{File: "/nowhere/cs"}, "read /nowhere/cs: no such file or directory"},
		{"directory", config.Source{File: "/"}, "read /: it is a directory, not a file"},
		{"pipe, without waiting for a writer", config.Source{File: pipe}, "read %[1]s: it is a pipe, not a file"},
		{"empty", config.Source{File: writeFile(t, "cs", "\n", 0o600)}, "read secret from file %[1]s: it is empty"},
		{"too large", config.Source{File: writeFile(t, "cs", strings.Repeat("x", 65<<10), 0o600)}, "read %[1]s: it is larger than 65536 bytes"},
		{"variable not set", config.Source{Env: "NO_SUCH_CS"}, "read variable NO_SUCH_CS: it is not set"},
		{"variable empty", config.Source{Env: "EMPTY_CS"}, "read secret from variable EMPTY_CS: it is empty"},
		{"no systemd", config.Source{Credential: "cs"}, "read credential cs: $CREDENTIALS_DIRECTORY is not set: is there a LoadCredential=cs:… in the systemd unit?"},
		{"none", config.Source{}, "read secret: no source is given"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := tt.want
			if strings.Contains(want, "%[1]s") {
				want = fmt.Sprintf(want, tt.source.File)
			}
			s, err := tt.source.Resolve()
			if err == nil || err.Error() != want {
				t.Errorf("got error %v, want %s", err, want)
			}
			if s != "" {
				t.Error("a refused secret was handed out all the same")
			}
		})
	}
}

func TestResolveRefusesAFileOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	path := writeFile(t, "cs", "s", 0o600)
	if err := os.Chown(path, 12345, -1); err != nil {
		t.Fatal(err)
	}
	_, err := config.Source{File: path}.Resolve()
	if err == nil || !strings.Contains(err.Error(), "it belongs to user 12345, neither root nor the user that runs fairlead (0)") {
		t.Errorf("got error %v", err)
	}
}

func TestNothingPrintsASecret(t *testing.T) {
	c := config.Default()
	c.Device.ConnectionString = config.Source{Text: core.Secret("c2VjcmV0")}
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{string(b), fmt.Sprintf("%v %+v %#v %v %q", c, c, c, c.Device, c.Device.ConnectionString)} {
		if strings.Contains(s, "c2VjcmV0") || strings.Contains(s, "63325") {
			t.Errorf("the secret shows in %s", s)
		}
	}
}
