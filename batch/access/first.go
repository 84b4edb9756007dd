package access

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// First makes the first key of a store that has none: operator, and admin of
// the tenant "default". With a file, the key is the one in it; if the file
// does not exist it is written with a fresh key, mode 0600, and is on disk
// before the store learns of it, so a crash in between loses nothing. The
// store keeps the key's hash only.
//
// It returns the key's text and whether it was made just now; "" if the
// store has keys already.
func First(ctx context.Context, v Vault, file string) (key string, created bool, err error) {
	known, err := v.Keys(ctx)
	if err != nil {
		return "", false, fmt.Errorf("read keys: %w", err)
	}
	if len(known) > 0 {
		return "", false, nil
	}
	if key, created, err = firstText(file); err != nil {
		return "", false, fmt.Errorf("admin key file: %w", err)
	}
	now := time.Now()
	err = v.AddKey(ctx, batch.Key{
		ID: batch.NewKeyID(now), Name: "first", Hash: Hash(key),
		Scopes: []string{string(Operator), string(Admin)}, Created: now.UTC(),
	}, true)
	if batch.CodeOf(err) == batch.Conflict { // another node was first
		if created && file != "" {
			return "", false, os.Remove(file)
		}
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("keep the first key: %w", err)
	}
	return key, created, nil
}

// Foreign reports whether the file holds a key that opens nothing here: none
// of the vault's, or one that has expired. Whoever put it there believes
// otherwise, but [First] makes no second key. No file is not foreign; what is
// no key is an error, which never repeats the file's content.
func Foreign(ctx context.Context, v Vault, file string) (bool, error) {
	if file == "" {
		return false, nil
	}
	key, err := readKey(file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("admin key file: %w", err)
	}
	_, known, err := NewKeys(v).Find(ctx, key)
	return err == nil && !known, err
}

// firstText reads the key from the file or makes one and writes it there.
func firstText(file string) (key string, created bool, err error) {
	if file == "" {
		return NewKey(), true, nil
	}
	key, err = readKey(file)
	if errors.Is(err, fs.ErrNotExist) {
		key = NewKey()
		return key, true, writeKey(file, key)
	}
	return key, false, err
}

func readKey(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return "", err
	}
	key := strings.TrimSpace(string(b))
	if !WellFormed(key) {
		return "", fmt.Errorf("%s does not hold a key (%s…); remove it to have one made", file, keyPrefix)
	}
	return key, nil
}

// writeKey puts the key into the file whole or not at all, and on disk.
func writeKey(file, key string) error {
	dir := filepath.Dir(file)
	f, err := os.CreateTemp(dir, "."+filepath.Base(file)+"-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.WriteString(key + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
