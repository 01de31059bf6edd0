package service_test

import (
	"os"

	"capsem/core/paths"
	"capsem/core/service"
)

func chown(path string, uid int) error { return os.Chown(path, uid, uid) }

// startIn does what a daemon does first with its home.
func startIn(home paths.Home) (paths.Home, error) { return home, service.OwnHome(home) }
