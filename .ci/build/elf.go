package main

import (
	"debug/elf"
	"errors"
	"fmt"
)

// errNotStatic is a program that would need a dynamic linker.
var errNotStatic = errors.New("not a static binary: it asks for a dynamic linker")

// checkStatic fails unless the ELF file at path runs without a dynamic linker.
func checkStatic(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("check %s: %w", path, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("check %s: %w", path, errNotStatic)
		}
	}
	libs, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("check %s: %w", path, err)
	}
	if len(libs) > 0 {
		return fmt.Errorf("check %s: needs %v: %w", path, libs, errNotStatic)
	}
	return nil
}
