package access

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// fakeVault keeps keys in memory and counts how often it is read.
type fakeVault struct {
	mu    sync.Mutex
	keys  []batch.Key
	reads int
	err   error  // what reading gives
	first func() // called before a key is added
}

func (v *fakeVault) Keys(context.Context) ([]batch.Key, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.reads++
	return append([]batch.Key(nil), v.keys...), v.err
}

func (v *fakeVault) AddKey(_ context.Context, k batch.Key, onlyFirst bool) error {
	if v.first != nil {
		v.first()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if onlyFirst && len(v.keys) > 0 {
		return batch.Errorf(batch.Conflict, "there are keys")
	}
	v.keys = append(v.keys, k)
	return nil
}

// add keeps a fresh key and returns its text.
func (v *fakeVault) add(k batch.Key) string {
	text := NewKey()
	k.Hash = Hash(text)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.keys = append(v.keys, k)
	return text
}

func TestKeyText(t *testing.T) {
	key := NewKey()
	if !WellFormed(key) || NewKey() == key {
		t.Fatalf("%s is no fresh key", key)
	}
	for i := range key {
		for _, c := range []byte("0z-") {
			if slip := key[:i] + string(c) + key[i+1:]; slip != key && WellFormed(slip) {
				t.Errorf("%s passes for %s", slip, key)
			}
		}
	}
	for _, bad := range []string{"", "cbk_", key[4:], key[:len(key)-1], key + "0", strings.ToUpper(key), " " + key, key + "\n"} {
		if WellFormed(bad) {
			t.Errorf("%q is well formed", bad)
		}
	}
}

func FuzzKeyText(f *testing.F) {
	f.Add(NewKey())
	f.Fuzz(func(t *testing.T, text string) {
		if WellFormed(text) && (len(text) != 52 || strings.ToLower(text) != text) {
			t.Errorf("%q is well formed", text)
		}
	})
}

func TestScopes(t *testing.T) {
	key := func(scopes ...string) batch.Key { return batch.Key{Scopes: scopes} }
	for _, c := range []struct {
		name  string
		key   batch.Key
		anyOf []Scope
		want  bool
	}{
		{"a scope allows itself", key("submit"), []Scope{Submit}, true},
		{"submit does not include read", key("submit"), []Scope{Read}, false},
		{"one of several is enough", key("submit"), []Scope{Read, Submit}, true},
		{"admin includes submit", key("admin"), []Scope{Submit}, true},
		{"admin includes read", key("admin"), []Scope{Read}, true},
		{"admin is no operator", key("admin"), []Scope{Operator}, false},
		{"an operator reads nothing", key("operator"), []Scope{Read}, false},
		{"an operator is no admin", key("operator"), []Scope{Admin}, false},
		{"the first key is both", key("operator", "admin"), []Scope{Operator}, true},
		{"no scope allows nothing", key(), []Scope{Read}, false},
		{"what asks for no scope is for nobody", key("admin", "operator"), nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Allows(c.key, c.anyOf...); got != c.want {
				t.Errorf("it is %v", got)
			}
		})
	}
}

func TestKeys(t *testing.T) {
	ctx := context.Background()
	find := func(t *testing.T, ks *Keys, text string) (batch.Key, bool) {
		t.Helper()
		k, ok, err := ks.Find(ctx, text)
		if err != nil {
			t.Fatal(err)
		}
		return k, ok
	}
	t.Run("are found by their text", func(t *testing.T) {
		var v fakeVault
		v.add(batch.Key{Name: "other"})
		text := v.add(batch.Key{Name: "mine", Tenant: batch.TenantID{7}})
		ks := NewKeys(&v)
		if k, ok := find(t, ks, text); !ok || k.Name != "mine" || k.Tenant != (batch.TenantID{7}) {
			t.Errorf("%+v, %v", k, ok)
		}
		if _, ok := find(t, ks, NewKey()); ok {
			t.Error("so is one that was never made")
		}
	})
	t.Run("that cannot be are refused without reading the vault", func(t *testing.T) {
		var v fakeVault
		for _, text := range []string{"", "cbk_x", strings.Repeat("k", 10<<10), "cbk_\x00"} {
			if _, ok := find(t, NewKeys(&v), text); ok {
				t.Errorf("%.20q is a key", text)
			}
		}
		if v.reads > 0 {
			t.Errorf("%d reads", v.reads)
		}
	})
	t.Run("are good until they expire", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var v fakeVault
			text := v.add(batch.Key{Expires: time.Now().Add(time.Minute)})
			ks := NewKeys(&v)
			if _, ok := find(t, ks, text); !ok {
				t.Error("it is not good yet")
			}
			time.Sleep(time.Minute)
			if _, ok := find(t, ks, text); ok {
				t.Error("it is still good")
			}
		})
	})
	t.Run("are no good five seconds after they were revoked", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var v fakeVault
			text := v.add(batch.Key{})
			ks := NewKeys(&v)
			find(t, ks, text)
			v.keys = nil
			time.Sleep(5 * time.Second)
			if _, ok := find(t, ks, text); ok {
				t.Error("it is still good")
			}
		})
	})
	t.Run("are known a second after they were made", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var v fakeVault
			ks := NewKeys(&v)
			find(t, ks, NewKey())
			text := v.add(batch.Key{})
			time.Sleep(time.Second)
			if _, ok := find(t, ks, text); !ok {
				t.Error("it is not known")
			}
		})
	})
	t.Run("are read seldom, however many ask", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var v fakeVault
			text := v.add(batch.Key{})
			ks := NewKeys(&v)
			for range 100 {
				find(t, ks, text)
				find(t, ks, NewKey())
				time.Sleep(100 * time.Millisecond)
			}
			if v.reads > 11 {
				t.Errorf("%d reads in ten seconds", v.reads)
			}
		})
	})
	t.Run("that cannot be read are an error, not a refusal", func(t *testing.T) {
		v := fakeVault{err: batch.Errorf(batch.Unavailable, "the store is away")}
		_, ok, err := NewKeys(&v).Find(ctx, NewKey())
		if ok || batch.CodeOf(err) != batch.Unavailable {
			t.Errorf("%v, %v", ok, err)
		}
	})
	t.Run("may be asked for by many at once", func(t *testing.T) {
		var v fakeVault
		text := v.add(batch.Key{})
		ks := NewKeys(&v)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, ok, err := ks.Find(ctx, text); !ok || err != nil {
					t.Errorf("%v, %v", ok, err)
				}
			})
		}
		wg.Wait()
		if v.reads != 1 {
			t.Errorf("%d reads", v.reads)
		}
	})
}

func TestFirst(t *testing.T) {
	ctx := context.Background()
	known := func(t *testing.T, v *fakeVault, text string) batch.Key {
		t.Helper()
		k, ok, err := NewKeys(v).Find(ctx, text)
		if !ok || err != nil {
			t.Fatalf("%q is not known: %v", text, err)
		}
		return k
	}
	t.Run("is operator and admin of the default tenant, and known by its hash only", func(t *testing.T) {
		var v fakeVault
		text, created, err := First(ctx, &v, "")
		if err != nil || !created {
			t.Fatalf("%v, %v", created, err)
		}
		k := known(t, &v, text)
		if !Allows(k, Operator) || !Allows(k, Admin) || k.Tenant != (batch.TenantID{}) || strings.Contains(string(k.Hash), text[4:]) {
			t.Errorf("it is %+v", k)
		}
		if text, created, err := First(ctx, &v, ""); text != "" || created || err != nil {
			t.Errorf("the second start gave %q, %v, %v", text, created, err)
		}
	})
	t.Run("is written to the file for its owner only, before the store knows it", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "admin.key")
		v := &fakeVault{}
		v.first = func() {
			if b, err := os.ReadFile(file); err != nil || !WellFormed(strings.TrimSpace(string(b))) {
				t.Errorf("the file holds %q, %v", b, err)
			}
		}
		text, created, err := First(ctx, v, file)
		if err != nil || !created {
			t.Fatalf("%v, %v", created, err)
		}
		b, err := os.ReadFile(file)
		if err != nil || string(b) != text+"\n" {
			t.Errorf("the file holds %q, %v", b, err)
		}
		if info, _ := os.Stat(file); info.Mode().Perm() != 0o600 {
			t.Errorf("its mode is %v", info.Mode())
		}
		if rest, _ := filepath.Glob(filepath.Join(filepath.Dir(file), ".*")); len(rest) > 0 {
			t.Errorf("left behind: %v", rest)
		}
	})
	t.Run("is read from the file if it is there", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "admin.key")
		want := NewKey()
		if err := os.WriteFile(file, []byte("  "+want+"\r\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		var v fakeVault
		text, created, err := First(ctx, &v, file)
		if text != want || created || err != nil {
			t.Fatalf("%q, %v, %v", text, created, err)
		}
		known(t, &v, want)
	})
	t.Run("is not made over a file that holds something else", func(t *testing.T) {
		for _, content := range []string{"", "password", NewKey()[:40]} {
			file := filepath.Join(t.TempDir(), "admin.key")
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			var v fakeVault
			_, _, err := First(ctx, &v, file)
			if err == nil || !strings.Contains(err.Error(), file) || len(v.keys) > 0 {
				t.Errorf("%q: %v", content, err)
			}
			if content != "" && strings.Contains(err.Error(), content) {
				t.Errorf("the error repeats the file: %v", err)
			}
		}
	})
	t.Run("is nothing where the file cannot be written", func(t *testing.T) {
		var v fakeVault
		if _, _, err := First(ctx, &v, filepath.Join(t.TempDir(), "none", "admin.key")); err == nil || len(v.keys) > 0 {
			t.Errorf("%v", err)
		}
	})
	t.Run("is not changed by another key in the file, which is foreign", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "admin.key")
		var v fakeVault
		foreign := func() bool {
			t.Helper()
			foreign, err := Foreign(ctx, &v, file)
			if err != nil {
				t.Fatal(err)
			}
			return foreign
		}
		if foreign() {
			t.Error("a file that is not there is foreign")
		}
		text, _, err := First(ctx, &v, file)
		if err != nil || foreign() {
			t.Errorf("the file that was written is foreign, or %v", err)
		}
		if err := os.WriteFile(file, []byte(NewKey()), 0o600); err != nil {
			t.Fatal(err)
		}
		if again, created, err := First(ctx, &v, file); again != "" || created || err != nil || !foreign() {
			t.Errorf("%q, %v, %v; foreign: %v", again, created, err, foreign())
		}
		known(t, &v, text)
		if err := os.WriteFile(file, []byte("password"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Foreign(ctx, &v, file); err == nil || strings.Contains(err.Error(), "password") {
			t.Errorf("what is no key: %v", err)
		}
		if foreign, err := Foreign(ctx, &v, ""); foreign || err != nil {
			t.Errorf("no file: %v, %v", foreign, err)
		}
	})
	t.Run("is another node's if that was first, and the file does not lie about it", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "admin.key")
		v := &fakeVault{}
		v.first = func() { v.add(batch.Key{Name: "first"}) }
		text, created, err := First(ctx, v, file)
		if text != "" || created || err != nil {
			t.Errorf("%q, %v, %v", text, created, err)
		}
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the file is there: %v", err)
		}
	})
}
