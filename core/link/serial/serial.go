// Package serial is the guest's end of the link over a virtio-serial port. It works on Linux; elsewhere it only compiles.
package serial
