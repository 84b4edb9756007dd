package api

import (
	"net/http"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/callback/signature"
)

func freshSecret() batch.Secret {
	return batch.Secret{Text: signature.NewSecret().Reveal(), Created: time.Now().UTC()}
}

// getSecret shows what the tenant's messages are signed with, and makes it
// if nothing was ever signed.
func (s *server) getSecret(w http.ResponseWriter, r *request) error {
	secrets, err := s.Store.Secrets(r.Context(), r.tenant, freshSecret())
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return writeJSON(w, http.StatusOK, encode(struct {
		Secret string `json:"secret"`
	}{secrets[0].Text}))
}

// rotateSecret makes a new secret. Those before sign beside it for a while, so
// that receivers can take it over one by one.
func (s *server) rotateSecret(w http.ResponseWriter, r *request) error {
	keep := "24h"
	in := struct {
		Keep *string `json:"keep_old_for"`
	}{&keep}
	if r.ContentLength != 0 {
		if err := r.input(&in); err != nil {
			return err
		}
	}
	const longest = 7 * 24 * time.Hour
	d, err := time.ParseDuration(*in.Keep)
	if err != nil || d < 0 || d > longest {
		return unacceptable(problemAt("/keep_old_for", "bad_duration", `keep_old_for is a duration such as "24h", from "0s" to "168h"`))
	}
	secrets, err := s.Store.Rotate(r.Context(), r.tenant, freshSecret(), d)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return writeJSON(w, http.StatusOK, encode(struct {
		Secret   string  `json:"secret"`
		OldUntil *string `json:"old_until"`
	}{secrets[0].Text, timeOrNull(lastUntil(secrets[1:]))}))
}

// lastUntil returns when the last of the secrets stops signing; zero if there are
// none.
func lastUntil(old []batch.Secret) (at time.Time) {
	for _, s := range old {
		if s.Until.After(at) {
			at = s.Until
		}
	}
	return at
}
