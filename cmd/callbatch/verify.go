package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/callbatch/callbatch/callback/signature"
)

func newVerify(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify {FILE|- | --request FILE}",
		Short: "Say whether a signature fits and, if not, why",
		Long: `Say whether the signature of a webhook fits and, if not, why: what is wrong with
the headers, the time, the secret or the body, and what to do about it.

The body comes from a file, or from standard input, byte for byte as it was
received. The headers come one by one, or from a file with a "Name: value" a
line, as curl -v and logs print them; other lines in it are passed over. Or
both come from one file with the whole request.

Exits 0 if the webhook is to be accepted, 1 if it is not, 2 if it was not looked
at. The reasons, for scripts:

` + listReasons(),
		Example: `  callbatch verify body.json --headers headers.txt
  callbatch verify - --id msg_… --timestamp 1780000000 --signature v1,… <body.json
  callbatch verify --request request.txt --secret-file secret.txt --tolerance 0`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("usage: %s", cmd.UseLine())
			}
			return nil
		},
	}
	var v verification
	f := cmd.Flags()
	v.secrets.register(f)
	f.StringVar(&v.id, "id", "", "`value` of the webhook-id header")
	f.StringVar(&v.timestamp, "timestamp", "", "`value` of the webhook-timestamp header")
	f.StringVar(&v.signature, "signature", "", "`value` of the webhook-signature header")
	f.StringVar(&v.headers, "headers", "", "`file` with the headers")
	f.StringVar(&v.request, "request", "", "`file` with the whole request: headers, an empty line, body")
	f.StringVar(&v.at, "at", "", "`time` to verify as of, such as 2026-01-31T12:00:00Z or 1780000000 (default now)")
	f.DurationVar(&v.tolerance, "tolerance", signature.DefaultTolerance, "how far the webhook's time may be off; 0 for any")
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		d, err := v.diagnosis(w, args)
		if err != nil {
			return usage{err}
		}
		return writeFinding(w, *output, d.run())
	}
	return cmd
}

func listReasons() string {
	var b strings.Builder
	for _, r := range reasons {
		fmt.Fprintf(&b, "  %s\n", r)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// A verification is what verify was told to look at.
type verification struct {
	secrets                  secretFlags
	id, timestamp, signature string // of the headers
	headers, request         string // files
	at                       string
	tolerance                time.Duration
}

// mostInput bounds a file, in bytes. A body that was written again with
// indents is longer than Callbatch sent it.
const mostInput = 8 << 20

// diagnosis reads everything that is to be judged.
func (v *verification) diagnosis(w *world, args []string) (d diagnosis, err error) {
	if err := v.conflict(args); err != nil {
		return d, err
	}
	if d.at, err = parseAt(v.at); err != nil {
		return d, err
	}
	if d.tolerance = v.tolerance; d.tolerance == 0 {
		d.tolerance = -1 // as Verify has it
	}
	if d.secrets, _, err = v.secrets.read(w); err != nil {
		return d, err
	}
	if len(d.secrets) == 0 {
		return d, fmt.Errorf("which secret? give it in %sSECRET, or with --secret-file", envPrefix)
	}
	if d.header, d.body, err = v.input(w, args); err != nil {
		return d, err
	}
	for name, value := range map[string]string{
		signature.HeaderID: v.id, signature.HeaderTimestamp: v.timestamp, signature.HeaderSignature: v.signature,
	} {
		if value != "" {
			d.header.Set(name, value)
		}
	}
	return d, nil
}

// conflict judges flags and arguments together.
func (v *verification) conflict(args []string) error {
	stdin := 0
	for _, name := range slices.Concat(args, []string{v.headers, v.request, v.secrets.file}) {
		if name == "-" {
			stdin++
		}
	}
	switch {
	case len(args) == 0 && v.request == "":
		return errors.New("which body? give its file, or - for standard input, or a whole request with --request")
	case v.request != "" && (len(args) > 0 || v.headers != ""):
		return errors.New("--request has headers and body in it: leave out the others")
	case v.request == "" && v.headers == "" && v.id+v.timestamp+v.signature == "":
		return errors.New("which headers? give --headers, or --id, --timestamp and --signature")
	case stdin > 1:
		return errors.New("standard input can be read only once")
	case v.tolerance < 0:
		return errors.New("--tolerance is 0 or more")
	}
	return nil
}

func (v *verification) input(w *world, args []string) (http.Header, []byte, error) {
	if v.request != "" {
		dump, err := readInput(w, v.request, mostInput)
		if err != nil {
			return nil, nil, err
		}
		header, rest := parseHeaders(dump)
		return header, requestBody(header, rest), nil
	}
	header := http.Header{}
	if v.headers != "" {
		text, err := readInput(w, v.headers, mostInput)
		if err != nil {
			return nil, nil, err
		}
		for len(text) > 0 { // a log may have empty lines in between
			var more http.Header
			more, text = parseHeaders(text)
			for name, values := range more {
				header[name] = append(header[name], values...)
			}
		}
	}
	body, err := readInput(w, args[0], mostInput)
	return header, body, err
}

// readInput reads a file, or standard input for "-", of at most most bytes.
func readInput(w *world, name string, most int64) ([]byte, error) {
	in := w.stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("%s is longer than %d bytes", name, most)
	}
	return text, err
}

// parseHeaders reads lines of "Name: value" up to the first that is empty, as
// a request has them or a tool prints them, and passes over what is none.
func parseHeaders(text []byte) (header http.Header, rest []byte) {
	header = http.Header{}
	for len(text) > 0 {
		line, after, _ := bytes.Cut(text, []byte("\n"))
		text = after
		clean := strings.TrimSpace(strings.TrimLeft(string(line), "<> \t\r"))
		if clean == "" {
			break
		}
		if name, value, ok := strings.Cut(clean, ":"); ok {
			header.Add(unquote(name), unquote(value))
		}
	}
	return header, text
}

// unquote takes off what a log that shows headers as an object puts around.
func unquote(s string) string { return strings.Trim(s, " \t\"',") }

// requestBody takes the coding of the transfer, and what an editor may have
// added, from the end of a request.
func requestBody(header http.Header, rest []byte) []byte {
	if strings.EqualFold(header.Get("Transfer-Encoding"), "chunked") {
		body, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(rest)))
		if err != nil { // it was shown decoded
			return rest
		}
		return body
	}
	if n, err := strconv.Atoi(header.Get("Content-Length")); err == nil && n >= 0 && n < len(rest) {
		return rest[:n]
	}
	return rest
}

// parseAt reads a time as people or as webhooks write it; empty means now.
func parseAt(text string) (time.Time, error) {
	if text == "" {
		return time.Now(), nil
	}
	if unix, err := strconv.ParseInt(text, 10, 40); err == nil {
		return time.Unix(unix, 0), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, fmt.Errorf("--at: %q is not a time such as 2026-01-31T12:00:00Z, or Unix seconds", text)
	}
	return at, nil
}

// writeFinding shows a finding. The error is quiet: the finding has it all.
func writeFinding(w *world, o output, f finding) error {
	var err error
	switch {
	case o == outputJSON:
		err = writeDocument(w, f)
	case f.Valid:
		_, err = fmt.Fprintf(w.stdout, "accepted: %s\n", f.Detail)
	default:
		_, err = fmt.Fprintf(w.stdout, "refused, %s: %s\n", f.Reason, f.Detail)
	}
	if err == nil && !f.Valid {
		err = quiet{errors.New("the signature does not fit")}
	}
	return err
}
