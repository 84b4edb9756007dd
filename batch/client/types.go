package client

import (
	"encoding/json"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// A Batch is a batch as the server shows it. States are text, so that a
// state of a newer server is no error.
type Batch struct {
	ID        string            `json:"id"`
	Status    string            `json:"status"`
	Reason    Text              `json:"reason"`
	Round     int               `json:"round"`
	Processor string            `json:"processor"`
	Counts    batch.Counts      `json:"counts"`
	Callback  Callback          `json:"callback"`
	Metadata  map[string]string `json:"metadata"`
	Priority  string            `json:"priority"`
	WaitingOn Text              `json:"waiting_on"`
	Rate      *float64          `json:"rate"` // items a second; nil while unknown
	ETA       *time.Time        `json:"eta"`
	Created   time.Time         `json:"created_at"`
	Started   *time.Time        `json:"started_at"`
	Finished  *time.Time        `json:"finished_at"`
	Expires   *time.Time        `json:"expires_at"`
	Links     map[string]string `json:"links"`
}

// Terminal reports whether the batch's round is over.
func (b Batch) Terminal() bool {
	var s batch.Status
	return s.UnmarshalText([]byte(b.Status)) == nil && s.Terminal()
}

// A Callback says where the results of a batch go and how far they are.
type Callback struct {
	URL      Text              `json:"url"`               // masked; empty: none
	Headers  map[string]string `json:"headers,omitempty"` // the names of the extra ones, masked
	Mode     string            `json:"mode"`
	Status   string            `json:"status"`
	Messages struct {
		Waiting   int `json:"waiting"`
		Delivered int `json:"delivered"`
		Exhausted int `json:"exhausted"`
		Other     int `json:"other"` // canceled, blocked or pulled
	} `json:"messages"`
}

// A Result is the outcome of an item.
type Result struct {
	Index    int             `json:"index"`
	ID       string          `json:"id"`
	Status   string          `json:"status"`
	Output   json.RawMessage `json:"output"` // if it succeeded
	Error    *batch.Failure  `json:"error"`  // if it did not
	Attempts int             `json:"attempts"`
	Round    int             `json:"round"` // 0 means 1
	Finished time.Time       `json:"finished_at"`
}

// An Item is one item as it stands.
type Item struct {
	Index    int             `json:"index"`
	ID       string          `json:"id"`
	Status   string          `json:"status"`
	Input    json.RawMessage `json:"input"`
	Attempts int             `json:"attempts"`
	Result   *Result         `json:"result"` // nil while it is unfinished
}

// A Processor is a processor as the server shows it.
type Processor struct {
	Name   string          `json:"name"`
	Kind   string          `json:"kind"`
	Health string          `json:"health"`
	Schema json.RawMessage `json:"schema"` // of its items; null: they may be anything
}

// A Text is null on the wire where it is empty.
type Text string

// MarshalJSON writes what the server wrote.
func (t Text) MarshalJSON() ([]byte, error) {
	if t == "" {
		return []byte("null"), nil
	}
	return json.Marshal(string(t))
}
