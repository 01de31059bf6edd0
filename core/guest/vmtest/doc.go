// Package vmtest boots one virtual machine and holds the guest to what it promises. All of it is tests, with the tag vm.
package vmtest
