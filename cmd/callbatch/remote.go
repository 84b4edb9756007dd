package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/client"
)

const defaultURL = "http://127.0.0.1:8080"

// connect returns a client of the server that the environment names.
func connect(w *world) (*client.Client, error) {
	return dial(serverURL(w), w.getenv(envPrefix+"KEY"))
}

// serverURL is where the server is.
func serverURL(w *world) string { return cmp.Or(w.getenv(envPrefix+"URL"), defaultURL) }

func dial(url, key string) (*client.Client, error) {
	c, err := client.New(client.Options{URL: url, Key: key, UserAgent: "callbatch/" + readBuild().Version})
	if err != nil {
		return nil, usagef("%sURL: %w", envPrefix, err)
	}
	return c, nil
}

// checkID judges the argument that names a batch before a server is asked.
func checkID(arg string) error {
	if _, err := batch.ParseID(arg); err != nil {
		return usagef("%q does not name a batch: %w", arg, err)
	}
	return nil
}

// explain writes an error, with the places in the input that a server found
// wrong and what else it said. Nothing of it does something to a terminal.
func explain(w *world, err error) {
	out := w.stderr
	var e *client.Error
	if !errors.As(err, &e) {
		fmt.Fprintf(out, "callbatch: %s\n", printableLines(err.Error()))
		return
	}
	headline, places := err.Error(), e.Errors
	if len(places) > 0 && strings.HasSuffix(headline, places[0].Detail) { // which need not be said twice
		headline = fmt.Sprintf("%d problems:", len(places)+e.More)
		if len(places)+e.More == 1 {
			headline, places = where(places[0])+places[0].Detail, nil
		}
	}
	fmt.Fprintf(out, "callbatch: %s\n", printable(headline, mostLine))
	const most = 10
	for _, p := range places[:min(len(places), most)] {
		fmt.Fprintf(out, "  %s\n", printable(where(p)+p.Detail, mostLine))
	}
	if more := e.More + max(0, len(places)-most); more > 0 {
		fmt.Fprintf(out, "  and %d more\n", more)
	}
	if e.Status == http.StatusUnauthorized && w.getenv(envPrefix+"KEY") == "" {
		fmt.Fprintf(out, "  put a key of this server into the environment as %sKEY\n", envPrefix)
	}
	if e.RetryAfter > 0 {
		fmt.Fprintf(out, "  try again in %s\n", e.RetryAfter.Round(time.Second))
	}
	if e.Status >= 500 && e.RequestID != "" {
		fmt.Fprintf(out, "  the server's log has it as %s\n", printable(e.RequestID, mostShown))
	}
}

func where(p client.Place) string {
	var at []string
	if p.Part != nil {
		at = append(at, fmt.Sprintf("part %d", *p.Part))
	}
	switch {
	case p.Line != nil:
		at = append(at, fmt.Sprintf("line %d", *p.Line))
	case p.Index != nil:
		at = append(at, fmt.Sprintf("item %d", *p.Index))
	}
	if p.Pointer != "" {
		at = append(at, p.Pointer)
	}
	if len(at) == 0 {
		return ""
	}
	return strings.Join(at, " ") + ": "
}
