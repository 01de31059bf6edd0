// Package vmtest holds the tests of the daemon with real workers and real VMs (build tag vm).
package vmtest
