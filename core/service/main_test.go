package service_test

import (
	"os"
	"testing"

	"capsem/core/service/servicetest"
)

// TestMain lets this binary be a worker without a VM.
func TestMain(m *testing.M) {
	if servicetest.IsWorker(os.Args) {
		os.Exit(servicetest.Worker(os.Args[1:]))
	}
	os.Exit(m.Run())
}
