package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/client"
)

// delivery is an audit that finds nothing: four items in two messages, the
// first of which was turned away once, and the message that ends the batch.
func delivery() *audit {
	a := &audit{batch: client.Batch{Counts: batch.Counts{Total: 4, Succeeded: 4}}}
	a.batch.Callback.Messages.Delivered = 3
	for i := range 4 {
		a.results = append(a.results, client.Result{Index: i, Status: "succeeded", Output: json.RawMessage(strconv.Itoa(i))})
	}
	message := func(id, typ string, status int, results ...client.Result) {
		e := event{Type: typ}
		e.Data.Results = slices.Clone(results)
		if typ != batch.TypeResults {
			e.Data.Counts, e.Data.Messages = a.batch.Counts, 2
		}
		a.arrivals = append(a.arrivals, arrival{ID: id, Event: e, Body: []byte(id), Status: status})
	}
	message("a", batch.TypeResults, http.StatusServiceUnavailable, a.results[:2]...)
	message("b", batch.TypeResults, http.StatusNoContent, a.results[2:]...)
	message("a", batch.TypeResults, http.StatusNoContent, a.results[:2]...)
	message("end", batch.TypeCompleted, http.StatusNoContent)
	return a
}

func TestAudit(t *testing.T) {
	if wrong := delivery().run(); len(wrong) > 0 {
		t.Fatalf("a delivery as promised: %q", wrong)
	}
	for _, tt := range []struct {
		name  string
		spoil func(*audit)
		want  string
	}{
		{"a bad signature", func(a *audit) { a.arrivals[1].Bad = errors.New("no signature matches") }, "no signature matches"},
		{"another body at the second attempt", func(a *audit) { a.arrivals[2].Body = []byte("x") }, "message a changed"},
		{"a message that does not come again", func(a *audit) { a.arrivals = append(a.arrivals[:2], a.arrivals[3]) }, "message a was turned away and did not come again"},
		{"nothing turned away", func(a *audit) { a.arrivals = a.arrivals[1:] }, "0 messages were turned away"},
		{"an item in two messages", func(a *audit) { a.arrivals[1].Event.Data.Results = a.results[1:] }, "item 1 came in two messages"},
		{"an item in no message", func(a *audit) { a.arrivals[1].Event.Data.Results = a.results[3:] }, "item 2 did not arrive"},
		{"another output than recorded", func(a *audit) { a.results[3].Output = json.RawMessage(`33`) }, "item 3 did not arrive as it was recorded"},
		{"an item that failed", func(a *audit) { a.results[0].Status = "failed" }, "which failed"},
		{"a result missing from the API", func(a *audit) { a.results = a.results[:3] }, "of 4 items 3 have a result and 4 arrived"},
		{"an item that is not of the batch", func(a *audit) {
			a.arrivals[1].Event.Data.Results = append([]client.Result{{Index: 9}}, a.results[2:]...)
		}, "4 have a result and 5 arrived"},
		{"no end", func(a *audit) { a.arrivals = a.arrivals[:3] }, "0 messages said that the batch had ended"},
		{"two ends", func(a *audit) {
			again := a.arrivals[3]
			again.ID = "end2"
			a.arrivals = append(a.arrivals, again)
		}, "2 messages said"},
		{"an end that speaks of more messages", func(a *audit) { a.arrivals[3].Event.Data.Messages = 3 }, "speaks of 3 messages"},
		{"an end that counts otherwise", func(a *audit) { a.arrivals[3].Event.Data.Counts.Succeeded = 3 }, "the end counts"},
		{"an API that counts other messages", func(a *audit) { a.batch.Callback.Messages.Exhausted = 1 }, "3 messages arrived, the API counts"},
	} {
		t.Run(tt.name+" is found", func(t *testing.T) {
			a := delivery()
			tt.spoil(a)
			if wrong := strings.Join(a.run(), "\n"); !strings.Contains(wrong, tt.want) {
				t.Errorf("found %q, want in it %q", wrong, tt.want)
			}
		})
	}
}
