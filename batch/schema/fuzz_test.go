package schema

import (
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/callbatch/callbatch/batch"
)

func FuzzCheck(f *testing.F) {
	for _, s := range []string{
		`{"sku":"AB-1","qty":1,"price":0.07,"on":"2026-02-28","kind":"a","v":2,"to":{"zip":1},"tags":["x"],"a/b":"abc","one":3.5,"not":1,"has":[null],"names":{"abc":1}}`,
		`{"qty":1e400,"price":-0.0e-400,"tags":[1,1],"a/b":{},"one":3}`, `[]`, `null`, `{"names":{"\u0000":{"~/":1}}}`,
	} {
		f.Add(s)
	}
	s := compile(f, order)
	f.Fuzz(func(t *testing.T, item string) {
		if !jsontext.Value(item).IsValid() {
			return
		}
		ps := s.Check([]byte(item))
		if len(ps) > batch.MaxProblems {
			t.Fatalf("%d problems", len(ps))
		}
		for _, p := range ps {
			if p.Detail == "" || p.Code != Code || p.Pointer != "" && p.Pointer[0] != '/' {
				t.Fatalf("%q: %+v", item, p)
			}
		}
	})
}
