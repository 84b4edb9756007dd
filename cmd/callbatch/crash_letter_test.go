package main_test

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
)

// letter is a message as its body tells it, by whichever road it came.
type letter struct {
	id      string
	body    [sha256.Size]byte
	doc     webhookDoc
	indexes []int // of the results it carries
	about   *submission
}

const (
	typeResults  = "batch.results"
	typeProgress = "batch.progress"
)

// read opens a message: it is about a batch that somebody sent, and the
// results it carries are those that were shown before.
func (l *ledger) read(id string, body []byte) (letter, error) {
	m := letter{id: id, body: sha256.Sum256(body)}
	if err := json.Unmarshal(body, &m.doc); err != nil {
		return m, err
	}
	if m.about = l.token(m.doc.Data.Metadata["token"]); m.about == nil {
		return m, errors.New("it is about a batch that nobody sent")
	}
	if known := m.about.batchID(); known != "" && known != m.doc.Data.BatchID {
		return m, fmt.Errorf("the batch is %s, not %s", known, m.doc.Data.BatchID)
	}
	for _, raw := range m.doc.Data.Results {
		r, err := m.about.note(raw)
		if err != nil {
			return m, err
		}
		m.indexes = append(m.indexes, r.Index)
	}
	m.doc.Data.Results = nil // noted by their digest
	return m, nil
}
