package batch

import (
	"bytes"
	"slices"
	"time"
)

type eventData struct {
	BatchID  ID                `json:"batch_id"`
	Round    int               `json:"round"`
	Metadata map[string]string `json:"metadata"`
}

func newEventData(s Spec, p Progress) eventData {
	md := s.Options.Metadata
	if md == nil {
		md = map[string]string{}
	}
	return eventData{BatchID: s.ID, Round: p.Round, Metadata: md}
}

type resultsData struct {
	eventData
	Range      int `json:"range"`
	Ranges     int `json:"ranges"`
	Part       int `json:"part"`
	Parts      int `json:"parts"`
	FirstIndex int `json:"first_index"`
	LastIndex  int `json:"last_index"`
	Results    raw `json:"results"`
}

type endData struct {
	eventData
	Status     Status  `json:"status"`
	Reason     *string `json:"reason"`
	Counts     Counts  `json:"counts"`
	Created    string  `json:"created_at"`
	Started    *string `json:"started_at"`
	Finished   string  `json:"finished_at"`
	Messages   int     `json:"messages"`
	Results    raw     `json:"results,omitempty"`
	ResultsURL *string `json:"results_url"`
}

type progressData struct {
	eventData
	Status  Status `json:"status"`
	Counts  Counts `json:"counts"`
	Percent int    `json:"percent"`
}

// hole is where the results go in an envelope: it cannot stand anywhere else
// in it, because inside a string its quotes would be escaped.
const hole = `["\u0000"]`

func newEndData(s Spec, p Progress, link string, inline bool) endData {
	d := endData{
		eventData: newEventData(s, p), Status: p.Status, Counts: Batch{Spec: s, Progress: p}.Counts(),
		Created: FormatTime(s.Created), Finished: FormatTime(p.Finished), Messages: p.Messages.Round,
	}
	if p.Reason != "" {
		d.Reason = &p.Reason
	}
	if !p.Started.IsZero() {
		at := FormatTime(p.Started)
		d.Started = &at
	}
	if link != "" {
		d.ResultsURL = &link
	}
	if inline {
		d.Results = raw(hole)
	}
	return d
}

func envelope(typ string, now time.Time, data any) []byte {
	if d, ok := data.(resultsData); ok {
		d.Results = raw(hole)
		data = d
	}
	b, err := marshal(struct {
		Type      string `json:"type"`
		Timestamp string `json:"timestamp"`
		Data      any    `json:"data"`
	}{typ, FormatTime(now), data})
	if err != nil {
		panic("batch: an envelope is plain data: " + err.Error())
	}
	return b
}

// splitResults cuts an envelope at its hole, keeping the brackets. What is
// appended to the head does not touch the tail.
func splitResults(b []byte) (head, tail []byte) {
	i := bytes.Index(b, []byte(hole))
	return slices.Clip(b[:i+1]), b[i+len(hole)-1:]
}
