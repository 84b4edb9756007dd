package client

import "testing"

func TestOnlyWhatPassesIsTemporary(t *testing.T) {
	for status, want := range map[int]bool{429: true, 502: true, 503: true, 504: true, 400: false, 401: false, 403: false, 404: false, 409: false, 500: false} {
		if got := (&Error{Status: status}).Temporary(); got != want {
			t.Errorf("%d: %v", status, got)
		}
	}
}
