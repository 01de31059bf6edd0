// Package qemu runs virtual machines with QEMU (design D1): in-process devices only, no network, no default devices, seccomp,
// an empty environment, an unprivileged user when started by root, and open files instead of paths. The process dies with
// the thread that started it. The driver is for Linux.
package qemu
