package api

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/gorilla/mux"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/access"
)

// A route is one row of the table: who may call what, with which query
// parameters.
type route struct {
	method string // GET answers HEAD as well
	path   string // as in openapi.yaml
	scopes []access.Scope
	params []string
	body   bool
	handle func(*server, http.ResponseWriter, *request) error
}

// open is the scope of what needs no key. It is no scope a key can bear: a
// row without any scope is refused to everybody.
const open access.Scope = "open"

// anyParam lets a handler judge the query parameters by itself.
const anyParam = "*"

// metadataParam stands for metadata.KEY=VALUE with any key.
const metadataParam = "metadata.KEY"

// Whether a row takes a body. Where none has a meaning one is refused.
const (
	noBody = false
	aBody  = true
)

// Scopes of rows.
var (
	toAnybody  = []access.Scope{open}
	toSubmit   = []access.Scope{access.Submit}
	toRead     = []access.Scope{access.Read}
	toEither   = []access.Scope{access.Read, access.Submit}
	toAdmin    = []access.Scope{access.Admin}
	toOperator = []access.Scope{access.Operator}
)

// routes is the whole API.
func routes() []route {
	return []route{
		{"POST", "/v1/batches", toSubmit, []string{anyParam}, aBody, (*server).submit},
		{"GET", "/v1/batches", toRead, []string{"status", "processor", metadataParam, "created_after", "created_before", "limit", "cursor"}, noBody, (*server).listBatches},
		{"GET", "/v1/batches/{id}", toRead, nil, noBody, (*server).getBatch},
		{"PATCH", "/v1/batches/{id}", toSubmit, nil, aBody, (*server).amend},
		{"DELETE", "/v1/batches/{id}", toSubmit, []string{"force"}, noBody, (*server).remove},
		{"GET", "/v1/batches/{id}/events", toRead, nil, noBody, (*server).events},
		{"GET", "/v1/events", toRead, nil, noBody, (*server).allEvents},
		{"GET", "/v1/batches/{id}/results", toRead, []string{"after", "limit", "follow", "status", "round", batch.LinkParam}, noBody, (*server).results},
		{"GET", "/v1/batches/{id}/parts", toEither, nil, noBody, (*server).listParts},
		{"PUT", "/v1/batches/{id}/parts/{part}", toSubmit, []string{anyParam}, aBody, (*server).putPart},
		{"DELETE", "/v1/batches/{id}/parts/{part}", toSubmit, nil, noBody, (*server).deletePart},
		{"POST", "/v1/batches/{id}/seal", toSubmit, nil, aBody, (*server).seal},
		{"GET", "/v1/batches/{id}/items", toRead, []string{"id"}, noBody, (*server).findItem},
		{"GET", "/v1/batches/{id}/items/{index}", toRead, nil, noBody, (*server).getItem},
		{"GET", "/v1/batches/{id}/items/{index}/output", toRead, []string{batch.LinkParam}, noBody, (*server).getOutput},
		{"POST", "/v1/batches/{id}/cancel", toSubmit, nil, noBody, (*server).cancel},
		{"POST", "/v1/batches/{id}/pause", toSubmit, nil, noBody, (*server).pause},
		{"POST", "/v1/batches/{id}/resume", toSubmit, nil, noBody, (*server).resume},
		{"POST", "/v1/batches/{id}/retry", toSubmit, nil, aBody, (*server).retry},

		{"GET", "/v1/batches/{id}/messages", toRead, []string{"status", "host", "limit", "cursor"}, noBody, (*server).listOfBatch},
		{"GET", "/v1/messages", toRead, []string{"status", "host", "limit", "cursor"}, noBody, (*server).listMessages},
		{"GET", "/v1/messages/feed", toRead, []string{"after", "wait", "limit"}, noBody, (*server).feed},
		{"GET", "/v1/messages/{id}", toRead, nil, noBody, (*server).getMessage},
		{"POST", "/v1/messages/{id}/redeliver", toAdmin, nil, noBody, (*server).redeliver},
		{"POST", "/v1/messages/redeliver", toAdmin, nil, aBody, (*server).redeliverAll},

		{"POST", "/v1/callbacks/test", toAdmin, nil, aBody, (*server).testCallback},
		{"GET", "/v1/callbacks/hosts", toRead, nil, noBody, (*server).listHosts},
		{"GET", "/v1/callbacks/secret", toAdmin, nil, noBody, (*server).getSecret},
		{"POST", "/v1/callbacks/secret/rotate", toAdmin, nil, aBody, (*server).rotateSecret},

		{"GET", "/v1/processors", toEither, nil, noBody, (*server).listProcessors},
		{"GET", "/livez", toAnybody, nil, noBody, (*server).alive},
		{"GET", "/healthz", toAnybody, nil, noBody, (*server).alive},
		{"GET", "/readyz", toAnybody, []string{"accepting"}, noBody, (*server).ready},
		{"GET", "/metrics", toOperator, nil, noBody, (*server).metrics},
		{"GET", "/openapi.yaml", toAnybody, nil, noBody, (*server).openapiYAML},
		{"GET", "/openapi.json", toAnybody, nil, noBody, (*server).openapiJSON},
	}
}

// patterns are what the variables of a path may be. What does not fit is no
// path.
var patterns = strings.NewReplacer(
	"{id}", "{id:[a-z]{3}_[0-9a-z]{26}}",
	"{index}", "{index:0|[1-9][0-9]{0,9}}",
	"{part}", "{part:0|[1-9][0-9]{0,3}}",
)

// A resource is what there is at a path, by method.
type resource map[string]route

// find returns the row for a method.
func (rs resource) find(method string) (route, bool) {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	rt, ok := rs[method]
	return rt, ok
}

// allow is the value of the Allow header.
func (rs resource) allow() string {
	ms := slices.Collect(maps.Keys(rs))
	if _, ok := rs[http.MethodGet]; ok {
		ms = append(ms, http.MethodHead)
	}
	slices.Sort(ms)
	return strings.Join(ms, ", ")
}

// route builds the router from the table. The router only matches paths: it
// would answer a wrong method without Allow and a path it does not know
// without what wraps it.
func (s *server) route() {
	s.router = mux.NewRouter()
	s.resources = map[string]resource{}
	for _, rt := range routes() {
		if len(rt.scopes) == 0 {
			panic("api: " + rt.method + " " + rt.path + " has no scope")
		}
		if rt.path == "/metrics" && s.Metrics == nil || rt.path == "/v1/callbacks/test" && s.Test == nil {
			continue
		}
		if s.resources[rt.path] == nil {
			s.resources[rt.path] = resource{}
			s.router.Path(patterns.Replace(rt.path)).Name(rt.path)
		}
		s.resources[rt.path][rt.method] = rt
	}
}

// match returns what is at the path of r and the variables in it. A path has
// one spelling: with an escape, an empty segment or a dot segment it is
// another path, which there is not.
func (s *server) match(r *http.Request) (path string, rs resource, vars map[string]string) {
	var m mux.RouteMatch
	if r.URL.RawPath != "" || !s.router.Match(r, &m) {
		return "none", nil, nil
	}
	path = m.Route.GetName()
	return path, s.resources[path], m.Vars
}
