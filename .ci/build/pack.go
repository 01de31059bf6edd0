package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
)

// pack writes the compressed form of raw to packed, unless it is there already: an unchanged file keeps its time, so
// what embeds it is not compiled again.
func pack(raw, packed string) error {
	content, err := os.ReadFile(raw)
	if err != nil {
		return fmt.Errorf("pack the agent: %w", err)
	}
	if same, err := holds(packed, content); err != nil || same {
		return err
	}
	// One goroutine, so that the same input gives the same bytes on any machine.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("pack the agent: %w", err)
	}
	defer enc.Close()
	if err := os.MkdirAll(filepath.Dir(packed), 0o755); err != nil {
		return fmt.Errorf("pack the agent: %w", err)
	}
	tmp := packed + ".new"
	if err := os.WriteFile(tmp, enc.EncodeAll(content, nil), 0o644); err != nil {
		return fmt.Errorf("pack the agent: %w", err)
	}
	if err := os.Rename(tmp, packed); err != nil {
		return fmt.Errorf("pack the agent: %w", err)
	}
	return nil
}

// holds reports whether packed decompresses to content. An absent or broken file does not.
func holds(packed string, content []byte) (bool, error) {
	old, err := os.ReadFile(packed)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the packed agent: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(1<<30))
	if err != nil {
		return false, fmt.Errorf("read the packed agent: %w", err)
	}
	defer dec.Close()
	was, err := dec.DecodeAll(old, nil)
	return err == nil && bytes.Equal(was, content), nil
}
