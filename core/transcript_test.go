package core_test

import (
	"testing"

	"github.com/fairlead-iot/fairlead/core/coretest"
)

func TestTranscripts(t *testing.T) { coretest.RunTranscripts(t, "testdata/*.txt") }
