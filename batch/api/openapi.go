package api

import (
	_ "embed"
	"encoding/json"
	"net/http"
	"sync"

	"go.yaml.in/yaml/v3"
)

// The document is written by hand; a test holds it against the table.
//
//go:embed openapi.yaml
var openapi []byte

// openapiAsJSON is the same document, made when it is first asked for.
var openapiAsJSON = sync.OnceValue(func() []byte {
	var doc map[string]any
	err := yaml.Unmarshal(openapi, &doc)
	var b []byte
	if err == nil {
		b, err = json.Marshal(doc)
	}
	if err != nil {
		panic("api: openapi.yaml: " + err.Error())
	}
	return b
})

func (s *server) openapiYAML(w http.ResponseWriter, _ *request) error {
	w.Header().Set("Content-Type", "application/yaml")
	_, err := w.Write(openapi)
	return err
}

func (s *server) openapiJSON(w http.ResponseWriter, _ *request) error {
	return writeJSON(w, http.StatusOK, openapiAsJSON())
}
