package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/client"
)

// show writes one message.
func (q *inquiry) show(ctx context.Context, w *world, c *client.Client, id string) error {
	m, err := c.Message(ctx, id)
	switch {
	case err != nil:
		return err
	case q.body:
		return writeBody(w, m.Body)
	case q.output == outputJSON:
		body := w.forScreen(m.Body)
		m.Body = nil
		return writeAround(w, m, "body", body, nil)
	}
	var s sheet
	s.message(m)
	for _, a := range m.Attempts {
		s.attempt(a)
		if q.verbose {
			s.exchange(a)
		}
	}
	_, err = w.stdout.Write(s.Bytes())
	return err
}

// writeBody writes the bytes that a receiver is sent, on a terminal as a line.
func writeBody(w *world, body []byte) error {
	body = w.forScreen(body)
	if _, ok := w.terminal(w.stdout); ok {
		body = append(body, '\n')
	}
	_, err := w.stdout.Write(body)
	return err
}

// A sheet is a text of rows: a name and what strangers sent.
type sheet struct{ bytes.Buffer }

func (s *sheet) row(name, format string, args ...any) {
	fmt.Fprintf(s, "%-10s  %s\n", name, printable(fmt.Sprintf(format, args...), mostLine))
}

// lines writes a row for each line of a text.
func (s *sheet) lines(name, text string) {
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\t", "    ")
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		s.row(name, "%s", line)
		name = ""
	}
}

func (s *sheet) headers(name string, headers map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(headers)) {
		s.row(name, "%s: %s", k, headers[k])
		name = ""
	}
}

func (s *sheet) message(m client.Message) {
	status := m.Status
	if m.Reason != "" {
		status += ": " + string(m.Reason)
	}
	s.row("message", "%s", m.ID)
	s.row("batch", "%s", m.Batch)
	s.row("type", "%s, of round %d", m.Type, m.Round)
	s.row("status", "%s", status)
	if m.Host != "" { // it is not to be pulled
		s.row("host", "%s", m.Host)
	}
	s.row("attempts", "%d", m.Made)
	s.row("created", "%s", localTime(&m.Created))
	if m.Next != nil {
		s.row("next", "%s", localTime(m.Next))
	}
	if m.Ended != nil {
		s.row("ended", "%s", localTime(m.Ended))
	}
}

// attempt writes when it was, how it ended and what took how long.
func (s *sheet) attempt(a batch.Attempt) {
	s.WriteByte('\n')
	s.row(fmt.Sprintf("attempt %d", a.Number), "%s", localTime(&a.Started))
	if a.RemoteAddr != "" {
		s.row("  to", "%s", a.RemoteAddr)
	}
	t := a.Took
	s.row("  took", "%d ms: dns %d, connect %d, tls %d, first byte %d", t.Total, t.DNS, t.Connect, t.TLS, t.FirstByte)
	if a.Response != nil {
		s.row("  answer", "%d", a.Response.Status)
	}
	if a.Error != nil {
		s.row("  error", "%s: %s", a.Error.Category, a.Error.Detail)
	}
}

// exchange writes what was said to each other.
func (s *sheet) exchange(a batch.Attempt) {
	s.headers("  request", a.RequestHeaders)
	if a.Response == nil {
		return
	}
	s.headers("  response", a.Response.Headers)
	if a.Response.Body != "" {
		s.lines("  body", a.Response.Body)
	}
	if a.Response.Truncated {
		s.row("", "(the rest of the body was not kept)")
	}
}
