package api

import (
	"net/http"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// redeliver has one message sent once more.
func (s *server) redeliver(w http.ResponseWriter, r *request) error {
	id, err := r.messageID()
	if err != nil {
		return err
	}
	return s.once(w, r, nil, func(once batch.Once) error {
		m, err := s.Store.Redeliver(r.Context(), r.tenant, id, once)
		if err != nil {
			return err
		}
		return writeJSON(w, http.StatusAccepted, encode(viewMessage(m)))
	}, func(batch.Binding) error {
		m, _, err := s.Store.Message(r.Context(), r.tenant, id)
		if err != nil {
			return err
		}
		return writeJSON(w, http.StatusAccepted, encode(viewMessage(m)))
	})
}

// redeliverAll keeps the order to send many messages once more.
func (s *server) redeliverAll(w http.ResponseWriter, r *request) error {
	order, err := redelivery(r)
	if err != nil {
		return err
	}
	asked := order
	asked.Made = time.Time{}
	return s.once(w, r, asked, func(once batch.Once) error {
		n, err := s.Store.RedeliverAll(r.Context(), order, once)
		if err != nil {
			return err
		}
		return writeCount(w, n)
	}, func(b batch.Binding) error { return writeCount(w, b.Count) })
}

func writeCount(w http.ResponseWriter, n int) error {
	return writeJSON(w, http.StatusAccepted, encode(struct {
		Count int `json:"count"`
	}{n}))
}

// redelivery reads the order. A filter that is there and empty is refused: it
// would let through everything.
func redelivery(r *request) (batch.Redelivery, error) {
	var in struct {
		Status string  `json:"status"`
		Host   *string `json:"host"`
		Since  *string `json:"since"`
	}
	o := batch.Redelivery{Tenant: r.tenant, Made: time.Now().UTC()}
	if err := r.input(&in); err != nil {
		return o, err
	}
	const states = "delivered, exhausted, canceled, blocked or pulled"
	switch err := o.State.UnmarshalText([]byte(in.Status)); {
	case in.Status == "":
		return o, unacceptable(problemAt("/status", "required", "status is required: "+states))
	case err != nil || !o.State.Settled():
		return o, unacceptable(problemAt("/status", "unknown_value", "status is "+states+": what is not settled is sent anyway"))
	}
	if in.Host != nil {
		var ok bool
		if o.Host, ok = lane(*in.Host); !ok {
			return o, unacceptable(problemAt("/host", "bad_host", hostForm))
		}
	}
	if in.Since != nil {
		var err error
		if o.Since, err = time.Parse(time.RFC3339, *in.Since); err != nil {
			return o, unacceptable(problemAt("/since", "bad_time", `since is a time such as "2026-11-23T12:00:00Z"`))
		}
		if o.Since.After(o.Made) {
			return o, unacceptable(problemAt("/since", "in_the_future", "since is in the future: no message was made then"))
		}
	}
	return o, nil
}
