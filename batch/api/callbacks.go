package api

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/callbatch/callbatch/batch"
)

// checkCallback is what only the server knows about where a callback is to go
// and what it is to bear. at and under are the pointers of the URL and of the
// headers.
func (s *server) checkCallback(rawURL string, headers map[string]string, at, under string) (ps []batch.Problem) {
	if rawURL != "" {
		if err := s.CheckCallback(rawURL); err != nil {
			ps = append(ps, problemAt(at, "callback_refused", "%v", err))
		}
	}
	whole := s.CheckHeaders(headers)
	if whole == nil {
		return ps
	}
	before := len(ps)
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		if err := s.CheckHeaders(map[string]string{name: headers[name]}); err != nil {
			pointer := jsontext.Pointer(under).AppendToken(fmt.Sprintf("%.80s", name))
			ps = append(ps, problemAt(string(pointer), "bad_header", "%v", err))
		}
	}
	if len(ps) == before { // it is in their number, or in two names that are one
		ps = append(ps, problemAt(under, "bad_header", "%v", whole))
	}
	return ps
}

// testCallback sends one message now and shows what came of it.
func (s *server) testCallback(w http.ResponseWriter, r *request) error {
	var in struct {
		URL     string            `json:"url"`
		Headers map[string]string `json:"headers"`
	}
	if err := r.input(&in); err != nil {
		return err
	}
	if in.URL == "" {
		return unacceptable(problemAt("/url", "required", "url is required: where the test is to go"))
	}
	if ps := s.checkCallback(in.URL, in.Headers, "/url", "/headers"); len(ps) > 0 {
		return unacceptable(ps...)
	}
	id, a, err := s.Test(r.Context(), r.tenant, in.URL, in.Headers)
	if err != nil {
		return fmt.Errorf("test callback: %w", err)
	}
	return writeJSON(w, http.StatusOK, encode(struct {
		ID        batch.MessageID `json:"message_id"`
		Delivered bool            `json:"delivered"`
		attemptView
	}{id, a.Error == nil, viewAttempt(a)}))
}

// hostView is a receiver's host that did not answer as it should.
type hostView struct {
	Host     string  `json:"host"`
	Status   string  `json:"status"`
	Failures int     `json:"failures"`
	Since    *string `json:"since"`
	Next     *string `json:"next_attempt_at"`
}

func viewHost(h batch.Health, now time.Time) hostView {
	v := hostView{Host: h.Host, Status: "failing", Failures: h.Failures, Since: timeOrNull(h.Since), Next: timeOrNull(h.Opens(now))}
	switch {
	case h.Open():
		v.Status = "open"
	case h.Recovering():
		v.Status = "recovering"
	}
	return v
}

func (s *server) listHosts(w http.ResponseWriter, r *request) error {
	hosts, err := s.Store.Hosts(r.Context(), r.tenant)
	if err != nil {
		return err
	}
	views, now := make([]hostView, len(hosts)), time.Now()
	for i, h := range hosts {
		views[i] = viewHost(h, now)
	}
	return writeJSON(w, http.StatusOK, encode(struct {
		Data []hostView `json:"data"`
	}{views}))
}
