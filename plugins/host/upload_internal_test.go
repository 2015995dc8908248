package host

import (
	"bytes"
	"testing"

	"github.com/fairlead-iot/fairlead/plugins/internal/wire"
	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
)

// TestTinyPartsOfAStreamAreHeldTogether: what is held is bounded in bytes, and each part has a cost of its own.
func TestTinyPartsOfAStreamAreHeldTogether(t *testing.T) {
	in := newInflow()
	want := make([]byte, wire.UploadWindow)
	for i := range want {
		want[i] = byte(i % 251)
		if err := in.put(&pluginv1.UploadData{Data: want[i : i+1 : i+1]}); err != nil {
			t.Fatal(err)
		}
	}
	if n, most := len(in.parts), 2*wire.UploadWindow/wire.UploadFrame; n > most {
		t.Errorf("%d parts are held, want %d at most", n, most)
	}
	if err := in.put(&pluginv1.UploadData{Data: []byte{1}}); err == nil {
		t.Error("more than the window was taken")
	}
	if err := in.put(&pluginv1.UploadData{Last: true}); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for {
		part, err := in.next(t.Context())
		if err != nil {
			break
		}
		got = append(got, part...)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came out, and not those that went in", len(got))
	}
}
