package main

import (
	"bytes"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/callbatch/callbatch"

// anything lets a package import all the others, but those that nobody may.
const anything = "..."

// drawing says which of our packages each of them may import. A package that
// is not in it has no place in the house yet.
var drawing = map[string][]string{
	"batch":                  {},
	"batch/access":           {"batch"},
	"batch/api":              {"batch", "batch/access", "batch/intake", "batch/metrics", "callback/signature"},
	"batch/client":           {"batch"},
	"batch/engine":           {"batch", "batch/metrics", "callback", "callback/signature"},
	"batch/intake":           {"batch"},
	"batch/metrics":          {},
	"batch/process/command":  {"batch"},
	"batch/process/jq":       {"batch"},
	"batch/process/upstream": {"batch"},
	"batch/schema":           {"batch"},
	"batch/server":           {anything},
	"callback":               {"callback/guard", "callback/signature"},
	"callback/guard":         {},
	"callback/signature":     {},
	"cmd/callbatch":          {anything},
	"storage":                {"batch", "storage/bolt"},
	"storage/bolt":           {"batch", "storage/record"},
	"storage/record":         {"batch"},
	"storage/storagetest":    {"batch"},
	"testdata":               {},
}

// standardOnly are the packages that import nothing but the standard library
// and what the drawing allows them.
var standardOnly = []string{"batch", "callback/signature", "testdata"}

// topLevel are the names at the root, besides dotfiles.
var topLevel = []string{"LICENSE", "README.md", "batch", "callback", "cmd", "go.mod", "go.sum", "storage", "testdata"}

func TestLayout(t *testing.T) {
	root := "../.."
	tree := os.DirFS(root)

	t.Run("every package imports only what the drawing allows", func(t *testing.T) {
		imports, err := readImports(tree)
		if err != nil {
			t.Fatal(err)
		}
		if len(imports) < 10 {
			t.Fatalf("only %d packages were found: this is not the tree", len(imports))
		}
		for _, v := range violations(imports) {
			t.Error(v)
		}
	})

	t.Run("the top-level names are the given ones", func(t *testing.T) {
		entries, err := fs.ReadDir(tree, ".")
		if err != nil {
			t.Fatal(err)
		}
		ignored, err := fs.ReadFile(tree, ".gitignore") // what the README's commands leave behind
		if err != nil {
			t.Fatal(err)
		}
		left := strings.Fields(string(ignored))
		var names []string
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(left, "/"+e.Name()) {
				names = append(names, e.Name())
			}
		}
		if diff := cmp.Diff(topLevel, names); diff != "" {
			t.Errorf("top-level names (-want +got):\n%s", diff)
		}
	})

	t.Run("no file names a place on somebody's machine", func(t *testing.T) {
		here, err := filepath.Abs(root)
		if err != nil {
			t.Fatal(err)
		}
		found, err := machinePaths(tree, here)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			t.Error(f)
		}
	})
}

// TestLayoutChecks checks the checks: each must see what it is there for.
func TestLayoutChecks(t *testing.T) {
	source := func(imports ...string) *fstest.MapFile {
		var b strings.Builder
		b.WriteString("package p\n")
		for _, i := range imports {
			fmt.Fprintf(&b, "import _ %q\n", i)
		}
		return &fstest.MapFile{Data: []byte(b.String())}
	}
	ours := func(p string) string { return module + "/" + p }

	for _, tt := range []struct {
		name string
		file string
		src  *fstest.MapFile
		want string // in the one violation; none if empty
	}{
		{"the domain may use the standard library", "batch/a.go", source("net/url"), ""},
		{"the domain may use nothing else", "batch/a.go", source("golang.org/x/sync/errgroup"), "golang.org/x/sync/errgroup"},
		{"the API never touches storage", "batch/api/a.go", source(ours("storage/bolt")), "storage/bolt"},
		{"a callback knows nothing of batches", "callback/a.go", source(ours("batch")), "batch"},
		{"the engine may call back", "batch/engine/a.go", source(ours("batch"), ours("callback")), ""},
		{"the engine never touches storage", "batch/engine/a.go", source(ours("storage")), "storage"},
		{"the assembly may import everything", "batch/server/a.go", source(ours("storage"), ours("callback"), ours("batch/api")), ""},
		{"nobody imports a command", "batch/server/a.go", source(ours("cmd/callbatch")), "cmd/callbatch"},
		{"tests may reach further", "batch/engine/a_test.go", source(ours("storage/bolt")), ""},
		{"tests do not import commands either", "batch/engine/a_test.go", source(ours("cmd/callbatch")), "cmd/callbatch"},
		{"a new folder has to be drawn", "batch/util/a.go", source(), "batch/util"},
		{"a new folder at the root too", "pkg/a.go", source(), "pkg"},
		{"a module of its own is another house", ".ci/tools/a.go", source("golang.org/x/perf/cmd/benchstat"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			imports, err := readImports(fstest.MapFS{tt.file: tt.src})
			if err != nil {
				t.Fatal(err)
			}
			got := violations(imports)
			switch {
			case tt.want == "" && len(got) > 0:
				t.Errorf("violations: %q, want none", got)
			case tt.want != "" && (len(got) != 1 || !strings.Contains(got[0], tt.want)):
				t.Errorf("violations: %q, want one about %s", got, tt.want)
			}
		})
	}

	t.Run("a path of somebody's machine is found, with its line", func(t *testing.T) {
		slash := string(filepath.Separator)
		tree := fstest.MapFS{
			"clean.md":      {Data: []byte("see ./batch and https://example.com/homework\n")},
			"mine.md":       {Data: []byte("one\nsee " + slash + "srv/checkout/batch\n")},
			"somebodys.txt": {Data: []byte("open " + slash + "home" + slash + "ann/notes\n")},
			".git/config":   {Data: []byte(slash + "srv/checkout")},
		}
		got, err := machinePaths(tree, "/srv/checkout")
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"mine.md:2: /srv/checkout", "somebodys.txt:1: " + slash + "home" + slash + "ann"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("found (-want +got):\n%s", diff)
		}
	})
}

// imported is what one package folder imports, in its tests or outside them.
type imported struct{ plain, tests []string }

// readImports reads the import lines of every package of the tree, dotted
// folders left out.
func readImports(tree fs.FS) (map[string]imported, error) {
	all := make(map[string]imported)
	err := fs.WalkDir(tree, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && name != "." && (strings.HasPrefix(e.Name(), ".") || e.Name() == "node_modules") {
			return fs.SkipDir
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		src, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir := path.Dir(name)
		pkg := all[dir]
		into := &pkg.plain
		if strings.HasSuffix(name, "_test.go") {
			into = &pkg.tests
		}
		for _, spec := range f.Imports {
			p, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			*into = append(*into, p)
		}
		all[dir] = pkg
		return nil
	})
	return all, err
}

// violations returns what in the imports breaks the rule.
func violations(imports map[string]imported) []string {
	var found []string
	for _, dir := range slices.Sorted(maps.Keys(imports)) {
		allowed, drawn := drawing[dir]
		if !drawn {
			found = append(found, dir+" is not in the drawing")
			continue
		}
		for _, p := range imports[dir].plain {
			if !permitted(dir, p, allowed) {
				found = append(found, dir+" imports "+p)
			}
		}
		for _, p := range imports[dir].tests {
			if isCommand(p) {
				found = append(found, "a test of "+dir+" imports "+p)
			}
		}
	}
	return found
}

func permitted(dir, imported string, allowed []string) bool {
	ours, isOurs := strings.CutPrefix(imported, module+"/")
	if !isOurs {
		standard := !strings.Contains(strings.Split(imported, "/")[0], ".")
		return standard || !slices.Contains(standardOnly, dir)
	}
	if isCommand(imported) {
		return false
	}
	return slices.Contains(allowed, ours) || slices.Contains(allowed, anything)
}

func isCommand(imported string) bool { return strings.HasPrefix(imported, module+"/cmd") }

// machinePaths finds absolute paths that exist on one machine only: into here
// or into somebody's home.
func machinePaths(tree fs.FS, here string) ([]string, error) {
	places := regexp.MustCompile(`(?:^|[\s"'(=:` + "`" + `])(` + regexp.QuoteMeta(here) + `\b|/(?:home|root|Users)/[\w.-]+)`)
	var found []string
	err := fs.WalkDir(tree, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && (e.Name() == ".git" || e.Name() == "node_modules") {
			return fs.SkipDir
		}
		if !e.Type().IsRegular() {
			return nil
		}
		text, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		for i, line := range bytes.Split(text, []byte("\n")) {
			if m := places.FindSubmatch(line); m != nil {
				found = append(found, fmt.Sprintf("%s:%d: %s", name, i+1, m[1]))
			}
		}
		return nil
	})
	return found, err
}
