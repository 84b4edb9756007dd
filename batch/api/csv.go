package api

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/callbatch/callbatch/batch"
)

// csvHeader names the columns of results as CSV (RFC 4180). They are the same
// whatever the outputs are, so that no row has to wait for another.
const csvHeader = "index,id,status,attempts,output,error_code,error_message,finished_at\r\n"

// appendRow appends a result as a row. The output is its JSON.
func appendRow(dst []byte, r batch.Result) []byte {
	dst = strconv.AppendInt(dst, int64(r.Index), 10)
	dst = appendCell(append(dst, ','), batch.ItemText(r.ID, r.Index))
	dst = append(append(dst, ','), r.Status.String()...)
	dst = strconv.AppendInt(append(dst, ','), int64(r.Attempts), 10)
	if r.Status == batch.ItemSucceeded {
		dst = append(dst, ',')
		if isNumber(r.Payload) {
			dst = append(dst, r.Payload...)
		} else {
			dst = appendCell(dst, string(r.Payload))
		}
		dst = append(dst, ",,"...)
	} else {
		var f batch.Failure
		_ = json.Unmarshal(r.Payload, &f) // it is ours; what it lacks is empty
		dst = appendCell(append(dst, ",,"...), f.Code)
		dst = appendCell(append(dst, ','), f.Message)
	}
	dst = append(append(dst, ','), batch.FormatTime(r.Finished)...)
	return append(dst, "\r\n"...)
}

// isNumber reports whether a JSON value is a number: it may begin with a minus
// and is harmless all the same.
func isNumber(v []byte) bool {
	return len(v) > 0 && (v[0] == '-' || v[0] >= '0' && v[0] <= '9')
}

// appendCell appends a cell, in quotes where it needs them. One that a
// spreadsheet would take for a formula gets an apostrophe before it, which
// makes it text there (OWASP, CSV injection).
func appendCell(dst []byte, cell string) []byte {
	if cell == "" {
		return dst
	}
	formula := strings.ContainsRune("=+-@\t\r\n＝＋－＠", firstRune(cell))
	if !formula && !strings.ContainsAny(cell, "\",;\t\r\n") && cell[0] != ' ' && cell[len(cell)-1] != ' ' {
		return append(dst, cell...)
	}
	dst = append(dst, '"')
	if formula {
		dst = append(dst, '\'')
	}
	dst = append(dst, strings.ReplaceAll(cell, `"`, `""`)...)
	return append(dst, '"')
}

func firstRune(s string) rune {
	for _, r := range s {
		return r
	}
	return 0
}
