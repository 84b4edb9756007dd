package api

import (
	"net/url"
	"strings"
	"testing"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/access"
)

// linksTo returns the links in messages to the results of a batch and to the
// output of an item, as paths.
func (w *world) linksTo(tenant batch.TenantID, id batch.ID) (results, output string) {
	s := batch.Spec{ID: id, Tenant: tenant, BaseURL: w.server.URL + "/"}
	return strings.TrimPrefix(w.links.ResultsURL(s), w.server.URL), strings.TrimPrefix(w.links.OutputURL(s, 0), w.server.URL)
}

func TestLinks(t *testing.T) {
	for name, with := range map[string]func(*Options){
		"with keys": func(*Options) {}, "without keys": func(o *Options) { o.Keys = nil },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, with)
			for _, tenant := range w.tenants {
				id := w.store.put(tenant, 3, 2)
				results, output := w.linksTo(tenant, id)
				for path, want := range map[string]string{
					results:              `{"index":0,"id":"0","status":"succeeded","output":{"total":6},`,
					results + "&after=0": `{"index":1,`,
					results + "&limit=1": `{"index":0,`,
					strings.Replace(results, "?", "?status=failed&", 1): "",
					output: `{"total":6}`,
				} {
					for _, method := range []string{"GET", "HEAD"} {
						r := w.do(method, path, "", "").is(200, "")
						if method == "GET" && (!strings.HasPrefix(string(r.body), want) || want == "" && len(r.body) > 0) {
							t.Errorf("%s: %s", path, r.body)
						}
						for header, want := range map[string]string{
							"Cache-Control": "private, no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
						} {
							if got := r.header.Get(header); got != want {
								t.Errorf("%s %s: %s is %q", method, path, header, got)
							}
						}
					}
				}
				w.do("GET", results+"&limit=0", "", "").is(400, "bad_limit")
				w.do("GET", results+"&round=1", "", "").is(200, "")
				w.do("GET", results+"&round=2", "", "").is(404, "no_such_round")
				w.do("GET", results+"&first=2", "", "").is(400, "unknown_parameter")
			}
		})
	}
	t.Run("need no same site without keys: they are a key", func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Keys = nil })
		results, _ := w.linksTo(w.tenants[0], w.store.put(w.tenants[0], 1, 1))
		w.do("GET", results, "", "", "Sec-Fetch-Site", "cross-site").is(200, "")
		path, _, _ := strings.Cut(results, "?")
		w.do("GET", path, "", "", "Sec-Fetch-Site", "cross-site").is(403, "cross_site")
	})
}

func TestLinksThatOpenNothing(t *testing.T) {
	w := newWorld(t)
	id, other := w.store.put(w.tenants[0], 1, 1), w.store.put(w.tenants[0], 1, 1)
	results, output := w.linksTo(w.tenants[0], id)
	foreign, _ := w.linksTo(w.tenants[1], id)
	path, link, _ := strings.Cut(results, "?link=")
	_, foreignLink, _ := strings.Cut(foreign, "?link=")
	_, outputLink, _ := strings.Cut(output, "?link=")
	flipped := []byte(link)
	flipped[30] ^= 1
	ask := func(path string, headers ...string) reply {
		return w.do("GET", path, "", "", append([]string{"X-Request-Id", "r"}, headers...)...)
	}
	want := ask(path+"?link=x").is(401, "unauthorized")
	for name, path := range map[string]string{
		"none":                     path + "?link=",
		"mangled":                  path + "?link=" + string(flipped),
		"cut short":                path + "?link=" + link[:20],
		"too long":                 path + "?link=" + link + "AAAA",
		"padded":                   path + "?link=" + link + "%3D",
		"in upper case":            path + "?link=" + strings.ToUpper(link),
		"of huge size":             path + "?link=" + strings.Repeat("A", 20_000),
		"of the item's output":     path + "?link=" + outputLink,
		"of another batch":         strings.Replace(results, id.String(), other.String(), 1),
		"to an output":             strings.Replace(output, outputLink, link, 1),
		"to another item's output": strings.Replace(output, "/0/", "/1/", 1),
		"twice":                    results + "&link=" + link,
		"of nobody's batch":        strings.Replace(results, id.String(), batch.ID{9}.String(), 1),
	} {
		t.Run(name, func(t *testing.T) {
			r := ask(path).is(401, "unauthorized")
			if string(r.body) != string(want.body) || r.header.Get("WWW-Authenticate") != "Bearer" || r.header.Get("Cache-Control") != "private, no-store" {
				t.Errorf("%v %s", r.header, r.body)
			}
		})
	}
	t.Run("one of the wrong tenant finds nothing", func(t *testing.T) {
		ask(path+"?link="+foreignLink).is(404, "not_found")
		gone := batch.ID{9}
		removed, _ := w.linksTo(w.tenants[0], gone)
		if a, b := ask(path+"?link="+foreignLink), ask(removed).is(404, "not_found"); string(a.body) != string(b.body) {
			t.Errorf("%s differs from %s", a.body, b.body)
		}
	})
	t.Run("with a key there would be two to choose from", func(t *testing.T) {
		for _, key := range []string{"Bearer " + w.admin(), "Bearer x", "Basic eDp5", ""} {
			for _, path := range []string{results, output, path + "?link=x"} {
				ask(path, "Authorization", key).is(400, "two_credentials")
			}
		}
	})
	t.Run("they open no other path", func(t *testing.T) {
		_, link, _ := strings.Cut(results, "?")
		for _, rt := range routes() {
			if rt.linked() || rt.scopes[0] == open {
				continue
			}
			path := rt.at(w.ids(rt, w.tenants[0])) + "?" + link
			w.do(rt.method, path, "", "").is(401, "unauthorized")
			if !strings.Contains(rt.path, "metrics") && rt.method == "GET" {
				w.get(path).is(400, "unknown_parameter")
			}
		}
	})
	t.Run("and serve no other method", func(t *testing.T) {
		w.do("POST", results, "", "").is(405, "method_not_allowed")
	})
	t.Run("a key reads without a link", func(t *testing.T) {
		w.do("GET", path, w.keys[0][access.Read], "").is(200, "")
		w.do("GET", path, w.keys[0][access.Submit], "").is(403, "forbidden")
		if got := ask(path).is(401, "unauthorized").problem().Detail; strings.Contains(got, "link") {
			t.Errorf("it says %q", got)
		}
	})
	t.Run("a query that is none is refused as ever", func(t *testing.T) {
		ask(path+"?link="+url.QueryEscape(link)+"&x=%zz").is(400, "bad_query")
		ask(path+"?x=%zz").is(401, "unauthorized")
	})
	t.Run("without the key that signs them none opens anything", func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Links = batch.Links{} })
		results, _ := w.linksTo(w.tenants[0], w.store.put(w.tenants[0], 1, 1))
		w.do("GET", results, "", "").is(401, "unauthorized")
	})
}
