package uploads

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// facts are what a file must still be when it has been read to its end.
type facts struct {
	size     int64
	modified time.Time
	id       string // device and inode, "" where the system has none
}

func factsOf(r core.UploadRecord) facts { return facts{r.Size, r.ModTime, r.File} }

// differs says what has changed from other to f; "" if nothing.
func (f facts) differs(other facts) string {
	switch {
	case f.size != other.size:
		return fmt.Sprintf("the file was changed meanwhile: it had %d bytes, and has %d; upload it again when nobody writes to it", other.size, f.size)
	case !f.modified.Equal(other.modified):
		return fmt.Sprintf("the file was changed meanwhile: it was of %s, and is of %s; upload it again when nobody writes to it",
			other.modified.UTC().Format(time.RFC3339Nano), f.modified.UTC().Format(time.RFC3339Nano))
	case f.id != other.id && f.id != "" && other.id != "":
		return "another file stands in the place of the one that was to be uploaded; upload it again"
	}
	return ""
}

// open opens a regular file.
func open(path string) (*os.File, facts, error) {
	// Looked at before it is opened: to open a device may have effects.
	info, err := os.Stat(path)
	if err != nil {
		return nil, facts{}, reason(err)
	}
	if !info.Mode().IsRegular() {
		return nil, facts{}, errors.New("it is not a regular file")
	}
	f, err := os.OpenFile(path, os.O_RDONLY|openAtOnce, 0)
	if err != nil {
		return nil, facts{}, reason(err)
	}
	now, err := lookAt(f)
	if err != nil {
		_ = f.Close()
		return nil, facts{}, err
	}
	return f, now, nil
}

func lookAt(f *os.File) (facts, error) {
	info, err := f.Stat()
	if err != nil {
		return facts{}, reason(err)
	}
	if !info.Mode().IsRegular() {
		return facts{}, errors.New("it is not a regular file")
	}
	return facts{info.Size(), info.ModTime().UTC(), fileID(info)}, nil
}

// reason takes the words off an error that name the file once more.
func reason(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err
	}
	return err
}

// readAll fills p from the file, and says so when the file ends before.
func readAll(f io.ReaderAt, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return &giveUpError{reason: "the file was changed meanwhile: it became shorter; upload it again when nobody writes to it"}
	}
	return &giveUpError{reason: fmt.Sprintf("the file cannot be read: %v", reason(err))}
}
