package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// call runs a client command against a server and returns what it wrote.
func call(t *testing.T, url, stdin, line string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), strings.Fields(line), []string{"CALLBATCH_URL=" + url}, strings.NewReader(stdin), &stdout, &stderr); code != 0 {
		t.Fatalf("%s: exit code %d: %s", line, code, &stderr)
	}
	return stdout.String()
}

// TestTimesAreWrittenAsTheAPIWritesThem has times whose last digits are zeros.
func TestTimesAreWrittenAsTheAPIWritesThem(t *testing.T) {
	const (
		batchID   = "bat_00000000000000000000000000"
		messageID = "msg_00000000000000000000000000"
		at        = `"2026-11-23T12:00:37.940Z"`
		whole     = `"2026-11-23T12:00:38.000Z"`
	)
	answers := map[string]string{
		"batch": `{"id":"` + batchID + `","status":"completed","counts":{"total":1,"succeeded":1},"callback":{},"metadata":{"b":"<&>","a":""},
			"eta":` + at + `,"created_at":` + at + `,"started_at":` + at + `,"finished_at":` + whole + `,"expires_at":` + whole + `,"links":{}}`,
		"message": `{"id":"` + messageID + `","created_at":` + at + `,"ended_at":` + whole + `,"next_attempt_at":` + at + `,
			"attempts":[{"number":1,"started_at":` + at + `}],"body":{}}`,
		"feed": `{"data":[{"id":"` + messageID + `","created_at":` + whole + `,"body":{}}],"next":"a"}`,
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		case path == "/v1/messages/feed" && r.URL.Query().Has("after"):
			io.WriteString(w, `{"data":[],"next":"a"}`)
		case path == "/v1/messages/feed":
			io.WriteString(w, answers["feed"])
		case path == "/v1/messages":
			io.WriteString(w, `{"data":[`+answers["message"]+`]}`)
		case strings.HasPrefix(path, "/v1/messages/"):
			io.WriteString(w, answers["message"])
		default:
			io.WriteString(w, answers["batch"])
		}
	}))
	defer s.Close()
	times := regexp.MustCompile(`"[a-z_]+":"20[^"]*"`)
	for line, answer := range map[string]string{
		"status " + batchID + " --output json":      "batch",
		"cancel " + batchID + " --output json":      "batch",
		"submit - --type ndjson --output json":      "batch",
		"messages --output json":                    "message",
		"messages " + messageID + " --output json":  "message",
		"redeliver " + messageID + " --output json": "message",
		"messages --feed":                           "feed",
	} {
		out := call(t, s.URL, "1\n", line)
		if diff := cmp.Diff(times.FindAllString(answers[answer], -1), times.FindAllString(out, -1)); diff != "" {
			t.Errorf("%s (-API +command):\n%s", line, diff)
		}
		if out != call(t, s.URL, "1\n", line) {
			t.Errorf("%s: the same is written twice in two ways", line)
		}
	}
}

// TestBodiesStayTheBytesThatAreSent has results in which a library that reads
// and writes JSON changes something.
func TestBodiesStayTheBytesThatAreSent(t *testing.T) {
	url := startServer(t)
	const item = "[ 1 , 2.50,\t\"\u2028\u0085<\\u00e9\\/\", 1e3 ]"
	call(t, url, item+"\n", "submit - --type ndjson --callback-mode pull --wait")
	var m struct{ ID string }
	if err := json.Unmarshal([]byte(call(t, url, "", "messages --output json")), &m); err != nil {
		t.Fatal(err)
	}
	body := call(t, url, "", "messages --body "+m.ID)
	if !strings.Contains(body, `"output":`+item) {
		t.Fatalf("the output was not kept in %q", body)
	}
	for line, then := range map[string]string{"messages --feed": `,"next":"`, "messages --output json " + m.ID: "}\n"} {
		out := call(t, url, "", line)
		_, after, found := strings.Cut(out, `,"body":`+body)
		if !found || !strings.HasPrefix(after, then) || !json.Valid([]byte(out)) || strings.Count(out, "\n") != 1 {
			t.Errorf("%s: the body is not\n%q in\n%q", line, body, out)
		}
	}
}

// TestABodyIsOneLine has one that another server sent.
func TestABodyIsOneLine(t *testing.T) {
	for body, want := range map[string]string{
		"{\r\n\"b\": \"\u2028\"\n}": "{\"a\":1,\"body\":{\"b\":\"\u2028\"}}\n",
		"":                          "{\"a\":1,\"body\":null}\n",
	} {
		var out bytes.Buffer
		if err := writeAround(&world{stdout: &out}, map[string]int{"a": 1}, "body", []byte(body), nil); err != nil || out.String() != want {
			t.Errorf("%q (%v), want %q", &out, err, want)
		}
	}
}
