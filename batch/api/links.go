package api

import (
	"net/http"
	"net/url"
	"slices"

	"github.com/callbatch/callbatch/batch"
)

// linked reports whether a link in a message may open the row.
func (rt route) linked() bool { return slices.Contains(rt.params, batch.LinkParam) }

// links returns the links a request bears. Nothing else in its query is judged
// before it is admitted.
func links(r *http.Request) []string {
	q, _ := url.ParseQuery(r.URL.RawQuery)
	return q[batch.LinkParam]
}

// follow returns whose path a link opens. A wrong one is answered without a
// look at the store: it tells nothing of what there is. What a link shows is
// for its bearer alone and stays in no cache, nor does the link go on to where
// a page might lead.
func (s *server) follow(w http.ResponseWriter, r *http.Request, links []string) (batch.TenantID, error) {
	w.Header().Set("Cache-Control", "private, no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
	if _, has := r.Header["Authorization"]; has {
		return batch.TenantID{}, badParam("two_credentials", "a link needs no key: send the link or the Authorization header, not both")
	}
	if len(links) == 1 {
		if tenant, ok := s.Links.Tenant(r.URL.Path, links[0]); ok {
			return tenant, nil
		}
	}
	return batch.TenantID{}, unauthorized(w, "this link opens nothing here: it is good for one path, as it came in the message")
}
