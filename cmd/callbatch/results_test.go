package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// resultLine is the line of an item that ended in a round.
func resultLine(index, round int) string {
	return fmt.Sprintf(`{"index":%d,"id":"%d","status":"succeeded","output":%d,"attempts":1,"round":%d}`+"\n", index, index, 10*round+index, round)
}

// resultsFrom answers as a server with a batch of some results in a round: all
// of them, or those after an index.
func resultsFrom(t *testing.T, total, round int, asked *[]string) []string {
	return answering(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/results") {
			io.WriteString(w, aBatch("completed", round, total, 0))
			return
		}
		*asked = append(*asked, r.URL.RawQuery+" "+r.Header.Get("Accept"))
		w.Header().Set("Content-Type", r.Header.Get("Accept"))
		after := -1
		fmt.Sscan(r.URL.Query().Get("after"), &after)
		for i := after + 1; i < total; i++ {
			io.WriteString(w, resultLine(i, round))
			if len(*asked) == 1 && r.URL.Query().Get("follow") != "" { // a connection breaks in the middle of a line
				io.WriteString(w, `{"index":`)
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}
		}
	})
}

func TestResults(t *testing.T) {
	lines := func(n, round int) (all string) {
		for i := range n {
			all += resultLine(i, round)
		}
		return all
	}
	for _, tt := range []struct {
		name  string
		have  string // in the file; empty: there is none
		round int
		args  []string
		asked []string
		want  string // in the file, or on stdout without one
		exit  int
		says  string
	}{
		{"to standard output", "", 1, nil, []string{" application/x-ndjson"}, lines(3, 1), 0, ""},
		{"into a new file", "", 1, []string{"-o", "FILE"}, []string{"after=-1 application/x-ndjson"}, lines(3, 1), 0, ""},
		{"behind what a file has", lines(2, 1), 1, []string{"-o", "FILE"}, []string{"after=0 application/x-ndjson"}, lines(3, 1), 0, ""},
		{"behind a line that is not whole", lines(2, 1) + `{"index":2,"id":"2"`, 1, []string{"-o", "FILE"}, []string{"after=0 application/x-ndjson"}, lines(3, 1), 0, ""},
		{"not behind another batch's", lines(1, 1) + resultLine(1, 7), 1, []string{"-o", "FILE"}, []string{"after=0 application/x-ndjson"}, lines(1, 1) + resultLine(1, 7), 1, "other results"},
		{"not behind more than there is", lines(4, 1), 1, []string{"-o", "FILE"}, []string{"after=2 application/x-ndjson"}, lines(4, 1), 1, "other results"},
		{"after a retry all that a file has is compared", lines(2, 2), 2, []string{"-o", "FILE"}, []string{"after=-1 application/x-ndjson"}, lines(3, 2), 0, ""},
		{"so that no rounds are mixed", resultLine(0, 1) + resultLine(1, 2), 2, []string{"-o", "FILE"}, []string{"after=-1 application/x-ndjson"}, resultLine(0, 1) + resultLine(1, 2), 1, "other results"},
		{"a file with a gap is left alone", resultLine(0, 1) + resultLine(2, 1), 1, []string{"-o", "FILE"}, nil, resultLine(0, 1) + resultLine(2, 1), 1, "missing"},
		{"follow goes on where the connection broke", "", 1, []string{"--follow"}, []string{"after=-1&follow=true application/x-ndjson", "after=0&follow=true application/x-ndjson"}, lines(3, 1), 0, "asking again"},
		{"follow into a file", lines(1, 1), 1, []string{"--follow", "-o", "FILE"}, []string{"after=-1&follow=true application/x-ndjson", "after=0&follow=true application/x-ndjson"}, lines(3, 1), 0, "asking again"},
		{"another format, a status and a round", "", 1, []string{"--format", "csv", "--status", "failed", "--round", "1"}, []string{"round=1&status=failed text/csv"}, lines(3, 1), 0, ""},
		{"another format does not go behind anything", lines(1, 1), 1, []string{"--format", "json", "-o", "FILE"}, nil, lines(1, 1), 1, "is not empty"},
		{"one document", "", 1, []string{"--format", "json"}, []string{" application/x-ndjson"}, "[\n" + strings.ReplaceAll(strings.TrimSuffix(lines(3, 1), "\n"), "\n", ",\n") + "\n]\n", 0, ""},
		{"after an item", "", 1, []string{"--after", "1"}, []string{"after=1 application/x-ndjson"}, resultLine(2, 1), 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "results.ndjson")
			if tt.have != "" {
				if err := os.WriteFile(file, []byte(tt.have), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var asked []string
			args := []string{"results", someBatch}
			toFile := false
			for _, a := range tt.args {
				toFile = toFile || a == "FILE"
				args = append(args, strings.ReplaceAll(a, "FILE", file))
			}
			got, stderr, code := invoke(t, resultsFrom(t, 3, tt.round, &asked), args...)
			if toFile {
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				got = string(text)
			}
			if got != tt.want || code != tt.exit || !strings.Contains(stderr, tt.says) {
				t.Errorf("exit %d:\n%s%s\nwant %d:\n%s", code, got, stderr, tt.exit, tt.want)
			}
			if fmt.Sprint(asked) != fmt.Sprint(tt.asked) {
				t.Errorf("it asked for %q, want %q", asked, tt.asked)
			}
		})
	}
	for _, args := range [][]string{
		{"--format", "xml"}, {"--status", "pending"}, {"--round", "0"}, {"--after", "-2"}, {"--follow", "--format", "csv"}, {"--follow", "--round", "1"},
	} {
		if _, stderr, code := invoke(t, nil, append([]string{"results", someBatch}, args...)...); code != exitUsage {
			t.Errorf("%q: exit %d: %s", args, code, stderr)
		}
	}
}
