package main

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/client"
)

// An audit compares what a receiver got with what the API says.
type audit struct {
	arrivals []arrival
	batch    client.Batch
	results  []client.Result

	messages map[string]event // acknowledged, by id
	wrong    []string
}

// run returns what is not as it was promised: nothing if every result came in
// exactly one acknowledged message, well signed and with the same bytes on
// every attempt, what was turned away came again, and all counts agree.
func (a *audit) run() []string {
	a.attempts()
	a.items()
	a.end()
	return a.wrong
}

func (a *audit) complain(format string, args ...any) {
	a.wrong = append(a.wrong, fmt.Sprintf(format, args...))
}

// attempts checks each message by itself.
func (a *audit) attempts() {
	a.messages = make(map[string]event)
	bodies := make(map[string][]byte)
	turnedAway := 0
	for _, r := range a.arrivals {
		if r.Bad != nil {
			a.complain("message %s: %v", r.ID, r.Bad)
			continue
		}
		if body, again := bodies[r.ID]; again && !bytes.Equal(body, r.Body) {
			a.complain("message %s changed between its attempts", r.ID)
		}
		bodies[r.ID] = r.Body
		if r.acknowledged() {
			a.messages[r.ID] = r.Event
		}
		if r.Status == http.StatusServiceUnavailable {
			turnedAway++
		}
	}
	for _, id := range slices.Sorted(maps.Keys(bodies)) {
		if _, ok := a.messages[id]; !ok {
			a.complain("message %s was turned away and did not come again", id)
		}
	}
	if turnedAway != 1 {
		a.complain("%d messages were turned away, not 1", turnedAway)
	}
}

// items checks that what the messages say is what was recorded.
func (a *audit) items() {
	outputs := make(map[int][]byte)
	for _, id := range slices.Sorted(maps.Keys(a.messages)) {
		for _, r := range a.messages[id].Data.Results {
			if _, twice := outputs[r.Index]; twice {
				a.complain("item %d came in two messages", r.Index)
			}
			outputs[r.Index] = r.Output
		}
	}
	for i, r := range a.results {
		if r.Index != i || r.Status != "succeeded" {
			a.complain("result %d is that of item %d, which %s", i, r.Index, r.Status)
		}
		if output, came := outputs[r.Index]; !came || !bytes.Equal(output, r.Output) {
			a.complain("item %d did not arrive as it was recorded", r.Index)
		}
	}
	if n := a.batch.Counts.Total; len(a.results) != n || len(outputs) != n {
		a.complain("of %d items %d have a result and %d arrived", n, len(a.results), len(outputs))
	}
}

// end checks the message that ends the batch, and all counts against it.
func (a *audit) end() {
	var ends []event
	for _, e := range a.messages {
		if e.Type != batch.TypeResults {
			ends = append(ends, e)
		}
	}
	if len(ends) != 1 {
		a.complain("%d messages said that the batch had ended, not 1", len(ends))
		return
	}
	end := ends[0].Data
	if end.Messages != len(a.messages)-1 {
		a.complain("the end speaks of %d messages with results, %d arrived", end.Messages, len(a.messages)-1)
	}
	if end.Counts != a.batch.Counts || end.Counts.Succeeded != len(a.results) {
		a.complain("the end counts %+v, the API %+v", end.Counts, a.batch.Counts)
	}
	if m := a.batch.Callback.Messages; m.Delivered != len(a.messages) || m.Waiting+m.Exhausted > 0 {
		a.complain("%d messages arrived, the API counts %+v", len(a.messages), m)
	}
}
