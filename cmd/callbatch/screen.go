package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/callbatch/callbatch/batch/client"
	"github.com/callbatch/callbatch/testdata"
)

// A screen is what the demo writes on.
type screen struct {
	mu     sync.Mutex // webhooks arrive on their own
	out    io.Writer
	lively bool // colour and bars
	begun  time.Time
	tenths int // of the items done, as last shown
}

func newScreen(w *world) *screen {
	return &screen{out: w.stdout, lively: w.lively(w.stdout), begun: time.Now()}
}

// The colours, as the parameters of SGR.
const (
	bold   = "1"
	dim    = "2"
	green  = "32"
	yellow = "33"
	red    = "31"
)

func (s *screen) paint(how, text string) string {
	if !s.lively {
		return text
	}
	return "\x1b[" + how + "m" + text + "\x1b[0m"
}

func (s *screen) printf(format string, args ...any) { fmt.Fprintf(s.out, format, args...) }

// event writes one line of what happens: when, what, and more about it.
func (s *screen) event(what, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := fmt.Sprintf("%5.2fs", time.Since(s.begun).Seconds())
	s.printf("  %s  %-8s  %s\n", s.paint(dim, at), what, fmt.Sprintf(format, args...))
}

func (s *screen) open(url, hooks string) {
	s.printf("%s\n\n", s.paint(bold, "312 time zones go in, their places come back in degrees."))
	s.printf("  server    %s\n", url)
	s.printf("  receiver  %s, which turns the first webhook away\n\n", hooks)
	s.begun = time.Now()
	s.event("submit", "POST /v1/batches, %d bytes of NDJSON", len(testdata.Timezones))
}

func (s *screen) accepted(b client.Batch) {
	s.event("accepted", "%s  %s, all %d items on disk", s.paint(green, "202"), b.ID, b.Counts.Total)
}

// progress shows every tenth part that is done.
func (s *screen) progress(b client.Batch) {
	const width = 20
	c := b.Counts
	tenths := 10 * c.Finished() / max(1, c.Total)
	if tenths == s.tenths {
		return
	}
	s.tenths = tenths
	var bar string
	if s.lively {
		filled := width * c.Finished() / c.Total
		bar = strings.Repeat("#", filled) + s.paint(dim, strings.Repeat(".", width-filled)) + "  "
	}
	s.event("progress", "%s%d of %d, %s", bar, c.Finished(), c.Total, b.Status)
}

func (s *screen) webhook(a arrival) {
	if a.Bad != nil {
		s.event("webhook", "%s  %v", s.paint(red, fmt.Sprint(a.Status)), a.Bad)
		return
	}
	status := s.paint(green, fmt.Sprint(a.Status))
	if !a.acknowledged() {
		status = s.paint(yellow, fmt.Sprint(a.Status))
	}
	what := "that is it"
	if rs := a.Event.Data.Results; len(rs) > 0 {
		what = fmt.Sprintf("%d to %d", rs[0].Index, rs[len(rs)-1].Index)
	}
	var note string
	switch {
	case a.Status == http.StatusServiceUnavailable:
		note = s.paint(yellow, "  turned away")
	case a.Attempt > 1:
		note = s.paint(green, "  here again")
	}
	s.event("webhook", "%s  %-15s  %-10s  try %d, signed%s", status, a.Event.Type, what, a.Attempt, note)
}

// shown are the zones of which the demo shows the results.
var shown = []string{"Pacific/Auckland", "Asia/Tokyo", "Europe/Zurich", "Africa/Nairobi", "America/New_York"}

func (s *screen) results(results []client.Result) {
	coordinates := make(map[string]string)
	for dec := json.NewDecoder(bytes.NewReader(testdata.Timezones)); dec.More(); {
		var z struct{ TZ, Coordinates string }
		if dec.Decode(&z) != nil {
			break
		}
		coordinates[z.TZ] = z.Coordinates
	}
	byZone := make(map[string]client.Result)
	for _, r := range results {
		byZone[r.ID] = r
	}
	s.printf("\n%s\n\n", s.paint(bold, "Some of the results"))
	s.printf("  %-18s %-17s %8s %10s\n", "zone", "sent", "latitude", "longitude")
	for _, zone := range shown {
		var o struct{ Latitude, Longitude float64 }
		_ = json.Unmarshal(byZone[zone].Output, &o)
		s.printf("  %-18s %-17s %8.4f %10.4f\n", zone, coordinates[zone], o.Latitude, o.Longitude)
	}
}

// judgement says whether all is as was promised.
func (s *screen) judgement(a audit, wrong []string) {
	s.printf("\n%s\n\n", s.paint(bold, "What was promised"))
	if len(wrong) == 0 {
		yes := s.paint(green, "yes")
		s.printf("  %s  each of the %d items has one result, and it arrived once\n", yes, len(a.results))
		s.printf("  %s  all %d messages were acknowledged, and every signature was good\n", yes, len(a.messages))
		s.printf("  %s  the one turned away came again, byte for byte the same\n", yes)
		s.printf("  %s  the last message, the API and what arrived count the same\n", yes)
	}
	for _, w := range wrong {
		s.printf("  %s  %s\n", s.paint(red, "no"), w)
	}
}

// encore says what to try next.
func (s *screen) encore(url, hooks string, id string) {
	s.printf("\n%s\n\n", s.paint(bold, "The server goes on until Ctrl-C. From another terminal:"))
	for _, line := range []string{
		"curl -s " + url + "/v1/batches/" + id,
		"curl -s " + url + "/v1/batches/" + id + "/results | head -3",
		"curl -s " + url + "/v1/batches/" + id + "/messages",
		"curl -s '" + url + "/v1/batches?callback_url=" + hooks + "' \\",
		"     -H 'content-type: application/x-ndjson' -d '{\"tz\":\"Home\",\"coordinates\":\"+4723+00832\"}'",
	} {
		s.printf("  %s\n", line)
	}
	s.printf("\nFor work of your own: callbatch serve --dev, and README.md.\n\n")
}
