package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// A bookmark is what is kept of an upload in parts while it is not done, so
// that the same command goes on with it. Which parts have arrived the server
// knows.
type bookmark struct {
	Batch    string    `json:"batch"`
	PartSize int64     `json:"part_size"`
	Size     int64     `json:"size"` // of the file, as it was
	Modified time.Time `json:"modified"`
	Options  string    `json:"options"` // their digest

	path string // empty: nothing is kept
}

// newBookmark returns the bookmark of an upload that begins.
func newBookmark(w *world, url, file string, info fs.FileInfo, options batch.Options) (*bookmark, error) {
	text, err := json.Marshal(options)
	if err != nil {
		return nil, err
	}
	b := &bookmark{Size: info.Size(), Modified: info.ModTime().UTC(), Options: fingerprint(string(text))}
	whole, err := filepath.Abs(file)
	if dir := w.cache(); dir != "" && err == nil {
		b.path = filepath.Join(dir, "callbatch", "uploads", fingerprint(url, whole)+".json")
	}
	return b, nil
}

// recall returns what was kept of an upload of the same file, unchanged, with
// the same options to the same server.
func (b *bookmark) recall() (kept bookmark, found bool) {
	text, err := os.ReadFile(b.path)
	if b.path == "" || err != nil || json.Unmarshal(text, &kept) != nil {
		return kept, false
	}
	same := kept.Size == b.Size && kept.Modified.Equal(b.Modified) && kept.Options == b.Options
	return kept, same && kept.PartSize > 0 && checkID(kept.Batch) == nil
}

// keep writes the bookmark; a crash leaves the one before.
func (b *bookmark) keep() error {
	if b.path == "" {
		return nil
	}
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(b.path), 0o700); err != nil {
		return err
	}
	fresh := b.path + ".new"
	if err := os.WriteFile(fresh, append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(fresh, b.path)
}

// drop removes it: the upload is done, or will never be.
func (b *bookmark) drop() error {
	if err := os.Remove(b.path); b.path != "" && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// cache returns the user's folder for what can be made again; empty: there is
// none.
func (w *world) cache() string {
	if dir := w.getenv("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return dir
	}
	if home := w.getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".cache")
	}
	return ""
}

// fingerprint returns a short name for texts.
func fingerprint(texts ...string) string {
	h := sha256.New()
	for _, t := range texts {
		fmt.Fprintf(h, "%d:%s", len(t), t)
	}
	const short = 16 // bytes
	return hex.EncodeToString(h.Sum(nil)[:short])
}
