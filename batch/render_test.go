package batch

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var made = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func succeeded(i int, output string) Result {
	return Result{Index: i, Round: 1, Status: ItemSucceeded, Attempts: 1, Finished: made, Payload: []byte(output)}
}

func body(t rapid.TB, m Message, rs []Result) []byte {
	t.Helper()
	b := AppendBody(nil, m, rs)
	if !json.Valid(b) {
		t.Fatalf("the body is not JSON: %s", b)
	}
	return b
}

func TestAppendResult(t *testing.T) {
	for name, c := range map[string]struct {
		r    Result
		want string
	}{
		"clients' bytes come out byte for byte": {
			succeeded(0, `{"a":"<>&","b":1e400,"c":9007199254740993,"d": [ 1 ]}`),
			`{"index":0,"id":"0","status":"succeeded","output":{"a":"<>&","b":1e400,"c":9007199254740993,"d": [ 1 ]},"attempts":1,"finished_at":"2026-11-23T12:00:00.000Z"}`,
		},
		"an id of its own is quoted": {
			Result{Index: 7, ID: "<é\"\n>", Round: 2, Status: ItemFailed, Attempts: 3, Finished: made, Payload: (&Failure{Code: CodeTimeout, Message: "a < b"}).JSON()},
			`{"index":7,"id":"<é\"\n>","status":"failed","error":{"code":"timeout","message":"a < b"},"attempts":3,"round":2,"finished_at":"2026-11-23T12:00:00.000Z"}`,
		},
		"what never ran says so": {
			EndedResult(3, "x", Progress{Status: Canceled, Round: 1, Finished: made}, 0),
			`{"index":3,"id":"x","status":"canceled","error":{"code":"canceled","message":"the batch was canceled before this item ran"},"attempts":0,"finished_at":"2026-11-23T12:00:00.000Z"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := string(AppendResult(nil, c.r)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}
