package pluginv1_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
)

var update = flag.Bool("update", false, "write what the wire is now into testdata")

// TestTheWireOnlyGrows compares the wire with what it was at the last -update: whatever was there must still be there, as
// it was. Plugins in the field were built with it.
func TestTheWireOnlyGrows(t *testing.T) {
	path := filepath.Join("testdata", "wire.txtpb")
	now := pluginv1.File_plugin_proto
	if *update {
		text, err := prototext.MarshalOptions{Multiline: true}.Marshal(protodesc.ToFileDescriptorProto(now))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	old := new(descriptorpb.FileDescriptorProto)
	if err := prototext.Unmarshal(text, old); err != nil {
		t.Fatal(err)
	}
	if old.GetPackage() != string(now.Package()) {
		t.Errorf("the package was %s", old.GetPackage())
	}
	for _, m := range old.GetMessageType() {
		message(t, m, now.Messages().ByName(protoreflect.Name(m.GetName())))
	}
	for _, e := range old.GetEnumType() {
		enum(t, e, now.Enums().ByName(protoreflect.Name(e.GetName())))
	}
	for _, s := range old.GetService() {
		service := now.Services().ByName(protoreflect.Name(s.GetName()))
		for _, m := range s.GetMethod() {
			if service == nil || service.Methods().ByName(protoreflect.Name(m.GetName())) == nil {
				t.Errorf("%s.%s is gone", s.GetName(), m.GetName())
			}
		}
	}
}

func message(t *testing.T, old *descriptorpb.DescriptorProto, now protoreflect.MessageDescriptor) {
	if now == nil {
		t.Errorf("message %s is gone", old.GetName())
		return
	}
	for _, f := range old.GetField() {
		n := now.Fields().ByNumber(protoreflect.FieldNumber(f.GetNumber()))
		if n == nil {
			if !now.ReservedRanges().Has(protoreflect.FieldNumber(f.GetNumber())) {
				t.Errorf("%s.%s (%d) is gone, and its number not reserved", old.GetName(), f.GetName(), f.GetNumber())
			}
			continue
		}
		is := protodesc.ToFieldDescriptorProto(n)
		if !proto.Equal(f, is) {
			t.Errorf("%s.%s has changed: it was %v, it is %v", old.GetName(), f.GetName(), f, is)
		}
	}
	for _, m := range old.GetNestedType() {
		message(t, m, now.Messages().ByName(protoreflect.Name(m.GetName())))
	}
	for _, e := range old.GetEnumType() {
		enum(t, e, now.Enums().ByName(protoreflect.Name(e.GetName())))
	}
}

func enum(t *testing.T, old *descriptorpb.EnumDescriptorProto, now protoreflect.EnumDescriptor) {
	if now == nil {
		t.Errorf("enum %s is gone", old.GetName())
		return
	}
	for _, v := range old.GetValue() {
		n := now.Values().ByNumber(protoreflect.EnumNumber(v.GetNumber()))
		if n == nil || string(n.Name()) != v.GetName() {
			t.Errorf("%s.%s (%d) is gone, or means something else", old.GetName(), v.GetName(), v.GetNumber())
		}
	}
}
