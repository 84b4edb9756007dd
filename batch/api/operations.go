package api

import (
	"net/http"
)

func (s *server) listProcessors(w http.ResponseWriter, r *request) error {
	list := s.Processors()
	if list == nil {
		list = []Processor{}
	}
	return writeJSON(w, http.StatusOK, encode(struct {
		Data []Processor `json:"data"`
	}{list}))
}

func (s *server) alive(w http.ResponseWriter, r *request) error {
	return writeJSON(w, http.StatusOK, []byte(`{"status":"ok"}`+"\n"))
}

// ready says whether to send requests here at all. A server that takes no
// new work still answers for the old, so that counts only if asked about.
func (s *server) ready(w http.ResponseWriter, r *request) error {
	answer := struct {
		Ready     bool    `json:"ready"`
		Accepting bool    `json:"accepting"`
		Reason    *string `json:"reason"`
	}{Ready: s.Options.Ready(), Accepting: true}
	if err := s.Accepting(); err != nil {
		reason := problemOf(err).Code
		answer.Accepting, answer.Reason = false, &reason
	}
	if !answer.Ready {
		answer.Accepting = false
	}
	matters := r.query.Get("accepting") == "1"
	if r.query.Has("accepting") && !matters {
		return badParam("bad_accepting", "accepting is 1 or not given")
	}
	status := http.StatusOK
	if !answer.Ready || matters && !answer.Accepting {
		status = http.StatusServiceUnavailable
	}
	return writeJSON(w, status, encode(answer))
}

func (s *server) metrics(w http.ResponseWriter, r *request) error {
	s.Metrics.ServeHTTP(w, r.Request)
	return nil
}
