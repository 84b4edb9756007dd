package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/callbatch/callbatch/batch/client"
)

func newListen(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "listen",
		Short: "Receive webhooks, verify them and show them",
		Long: `Receive webhooks while you write your own receiver: verify each, show it in a
line, and answer 204, or 401 if its signature does not fit. It goes on until
Ctrl-C.

The secret comes from --secret-file, --secret or CALLBATCH_SECRET; without any,
the server at CALLBATCH_URL is asked for that of the key in CALLBATCH_KEY,
and once more when a signature does not fit: it may have been rotated.

With --forward-to a webhook that fits is passed on as it is, and answered as
your receiver answers it: 502 if that cannot be reached. --fail-rate turns a
share of them away with 503 instead, so that they are sent again.`,
		Example: `  callbatch listen
  callbatch listen --forward-to http://127.0.0.1:3000/hooks --fail-rate 0.3
  callbatch listen --output json | jq .event.data.counts`,
		Args: exactly(),
	}
	var e ear
	f := cmd.Flags()
	f.StringVar(&e.address, "listen", "127.0.0.1:9000", "`address` to listen on; port 0 picks a free one")
	e.secrets.register(f)
	f.BoolVar(&e.receiver.unverified, "skip-verify", false, "take everything, whoever signed it")
	f.StringVar(&e.target, "forward-to", "", "`url` to pass webhooks on to")
	f.Float64Var(&e.failRate, "fail-rate", 0, "`share` of the webhooks to turn away, from 0 to 1")
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		e.output = *output
		return e.run(cmd, w)
	}
	return cmd
}

// An ear is what listen was told to do, and what it remembers.
type ear struct {
	address  string
	secrets  secretFlags
	target   string
	failRate float64
	output   output

	world    *world
	receiver receiver
	forward  *forwarder // nil: nowhere
	screen   *screen    // its lock is that of all that follows
	recall   recall
}

func (e *ear) run(cmd *cobra.Command, w *world) (err error) {
	if err := e.complete(); err != nil {
		return usage{err}
	}
	from, err := e.learnSecrets(cmd, w)
	if err != nil {
		return err
	}
	e.world, e.screen = w, newScreen(w)
	e.receiver.answer = e.answer
	l, err := e.receiver.listen(e.address)
	if err != nil {
		return fmt.Errorf("%w; --listen chooses another address", err)
	}
	defer func() { err = errors.Join(err, l.stop()) }()
	if e.forward != nil {
		defer e.forward.close()
		if isSelf(e.forward.target.Hostname(), e.forward.target.Port(), l.addr.(*net.TCPAddr)) {
			return usagef("--forward-to is this receiver itself")
		}
	}
	fmt.Fprintf(w.stderr, "callback_url: %s\nsignatures:   %s\n", l.url(), from)
	select {
	case <-cmd.Context().Done():
		return nil
	case err := <-l.ended:
		l.ended <- http.ErrServerClosed // for stop
		return fmt.Errorf("receive: %w", err)
	}
}

// complete judges the flags together.
func (e *ear) complete() (err error) {
	switch {
	case !isAddress(e.address):
		return fmt.Errorf(`--listen must look like "127.0.0.1:9000", not %q`, e.address)
	case !(e.failRate >= 0 && e.failRate <= 1): // which NaN is not
		return errors.New("--fail-rate is a share from 0 to 1")
	case e.receiver.unverified && e.secrets.given():
		return errors.New("--skip-verify needs no secret")
	}
	if e.target != "" {
		e.forward, err = newForwarder(e.target)
	}
	return err
}

// learnSecrets finds out what to verify with, and says from where.
func (e *ear) learnSecrets(cmd *cobra.Command, w *world) (from string, err error) {
	if e.receiver.unverified {
		return "not verified", nil
	}
	texts, from, err := e.secrets.read(w)
	if err != nil {
		return "", usage{err}
	}
	if len(texts) > 0 {
		if e.receiver.secrets, err = parseSecrets(texts); err != nil {
			return "", usagef("%s: %w", from, err)
		}
		return "verified with " + from, nil
	}
	c, err := connect(w)
	if err != nil {
		return "", err
	}
	k := newKeyring(c.Secret, w.stderr)
	if err := k.learn(cmd.Context()); err != nil {
		return "", fmt.Errorf("ask the server for the secret, as none was given: %w", err)
	}
	e.receiver.keys = k
	return "verified with the server's secret", nil
}

// isSelf reports whether a target is where we listen.
func isSelf(host, port string, we *net.TCPAddr) bool {
	ip, err := netip.ParseAddr(host)
	near := host == "localhost" || err == nil && (ip.IsLoopback() || ip.Unmap() == we.AddrPort().Addr().Unmap())
	return near && port == strconv.Itoa(we.Port)
}

// answer answers a webhook, and shows it.
func (e *ear) answer(w http.ResponseWriter, req *http.Request, a arrival) {
	r := reply{status: http.StatusNoContent}
	var note string
	switch {
	case a.Bad != nil:
		r, note = refusal(http.StatusUnauthorized, a.Bad.Error())
	case rand.Float64() < e.failRate:
		r, note = refusal(http.StatusServiceUnavailable, "turned away by --fail-rate")
	case e.forward != nil:
		var err error
		if r, err = e.forward.pass(req, a.Body); err != nil {
			r, note = refusal(http.StatusBadGateway, "--forward-to: "+err.Error())
		}
	}
	a.Status = r.status
	e.show(a, note)
	r.write(w)
}

func refusal(status int, why string) (reply, string) {
	return reply{status, http.Header{"Content-Type": {"text/plain; charset=utf-8"}}, []byte(why + "\n")}, why
}

// A heard is one line of --output json, without the event at its end.
type heard struct {
	At      time.Time   `json:"received_at"`
	ID      string      `json:"webhook_id"`
	Attempt int         `json:"attempt"`
	Again   bool        `json:"again"` // it has been here before
	Status  int         `json:"status"`
	Note    client.Text `json:"note"`
}

// show writes a line about an arrival that has been answered.
func (e *ear) show(a arrival, note string) {
	e.screen.mu.Lock()
	defer e.screen.mu.Unlock()
	var before sighting
	if a.Bad == nil {
		before = e.recall.note(a.ID, a.acknowledged())
	}
	if e.output == outputText {
		e.showText(a, note, before)
		return
	}
	h := heard{
		At: time.Now().UTC(), ID: printable(a.ID, mostShown), Attempt: a.Attempt,
		Again: before != unseen, Status: a.Status, Note: client.Text(printable(note, mostShown)),
	}
	event := []byte("null") // if the signature does not fit
	if a.Bad == nil && json.Valid(a.Body) {
		event = escapeJSON(a.Body, unprintable)
	}
	_ = writeAround(e.world, h, "event", event, nil) // nobody is there to be told
}

// mostShown is how much of a stranger's text stands in a line, in characters.
const mostShown = 200

func (e *ear) showText(a arrival, note string, before sighting) {
	s := e.screen
	colour := green
	switch {
	case a.Status/100 == 4:
		colour = red
	case !a.acknowledged():
		colour = yellow
	}
	at := s.paint(dim, time.Now().Format(time.TimeOnly))
	status := s.paint(colour, strconv.Itoa(a.Status))
	if a.Bad != nil {
		s.printf("%s  %s  %s  %s\n", at, status, printable(cmp.Or(a.ID, "-"), mostShown), printable(note, mostShown))
		return
	}
	line := fmt.Sprintf("%-15s  %-30s  try %d  %s", a.Event.Type, a.Event.Data.BatchID, a.Attempt, contents(a))
	s.printf("%s  %s  %s", at, status, printable(line, mostShown))
	for _, n := range []string{note, string(before)} {
		if n != "" {
			s.printf("  %s", s.paint(yellow, printable(n, mostShown)))
		}
	}
	s.printf("\n")
}

// contents says in a few words what an event tells.
func contents(a arrival) string {
	d := a.Event.Data
	var said string
	if d.Counts.Total > 0 {
		said = d.Status + ": " + countsLine(d.Counts) + "  "
	}
	if n := len(d.Results); n > 0 {
		said += fmt.Sprintf("%d results, %d to %d", n, d.Results[0].Index, d.Results[n-1].Index)
	}
	if said == "" {
		said = fmt.Sprintf("%d bytes", len(a.Body))
	}
	return said
}
