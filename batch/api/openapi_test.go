package api

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/access"
)

func TestTheDocumentAgreesWithTheTable(t *testing.T) {
	doc, err := document()
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]bool{}
	for _, rt := range routes() {
		rows[rt.method+" "+rt.path] = true
		item := doc.Paths.Find(rt.path)
		if item == nil || item.GetOperation(rt.method) == nil {
			t.Errorf("%s %s is not documented", rt.method, rt.path)
			continue
		}
		op := item.GetOperation(rt.method)

		t.Run(rt.method+" "+rt.path+" needs the scopes it says", func(t *testing.T) {
			if op.Security == nil {
				t.Fatal("the operation says nothing of its scopes")
			}
			var said []access.Scope
			for _, alternative := range *op.Security {
				for _, s := range alternative["key"] {
					said = append(said, access.Scope(s))
				}
			}
			want := rt.scopes
			if slices.Equal(want, toAnybody) {
				want = nil
			}
			if !slices.Equal(said, want) {
				t.Errorf("it says %v, the table %v", said, rt.scopes)
			}
		})
		t.Run(rt.method+" "+rt.path+" takes the parameters it says", func(t *testing.T) {
			if slices.Contains(rt.params, anyParam) {
				return // intake judges them
			}
			var said []string
			for _, p := range op.Parameters {
				if p.Value.In == "query" {
					said = append(said, p.Value.Name)
				}
			}
			for _, alternative := range *op.Security {
				if _, ok := alternative["link"]; ok {
					said = append(said, batch.LinkParam)
				}
			}
			if !slices.Equal(said, rt.params) {
				t.Errorf("it says %q, the table %q", said, rt.params)
			}
		})
	}
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			if !rows[method+" "+path] {
				t.Errorf("%s %s is documented and does not exist", method, path)
			}
		}
	}
}

func TestTheDocumentIsServed(t *testing.T) {
	w := newWorld(t)
	y := w.do("GET", "/openapi.yaml", "", "").is(200, "")
	if !strings.HasPrefix(string(y.body), "openapi: 3.1") {
		t.Errorf("as YAML it begins with %.40q", y.body)
	}
	j := w.do("GET", "/openapi.json", "", "").is(200, "")
	var doc struct {
		OpenAPI  string
		Paths    map[string]json.RawMessage
		Webhooks map[string]json.RawMessage
	}
	j.decode(&doc)
	if doc.OpenAPI != "3.1.0" || len(doc.Paths) == 0 || len(doc.Webhooks) == 0 {
		t.Errorf("as JSON it is %.200s", j.body)
	}
	for _, rt := range routes() {
		if _, ok := doc.Paths[rt.path]; !ok {
			t.Errorf("%s is missing in the JSON", rt.path)
		}
	}
}

func TestEveryRowHasAScope(t *testing.T) {
	known := []access.Scope{open, access.Submit, access.Read, access.Admin, access.Operator}
	for _, rt := range routes() {
		if len(rt.scopes) == 0 {
			t.Errorf("%s %s has none", rt.method, rt.path)
		}
		for _, s := range rt.scopes {
			if !slices.Contains(known, s) {
				t.Errorf("%s %s has the unknown scope %q", rt.method, rt.path, s)
			}
		}
		if rt.method != http.MethodGet && slices.Equal(rt.scopes, toAnybody) {
			t.Errorf("%s %s changes something and is open to anybody", rt.method, rt.path)
		}
	}
}
