package main

import (
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// cutUp returns what each piece of a text is sent as, and its first line.
func cutUp(t *rapid.T, text string, isCSV bool, size int64) (bodies []string, lines []int) {
	c := newCutter(strings.NewReader(text), isCSV, size)
	if err := c.head(); err != nil {
		t.Fatal(err)
	}
	for p, err := range c.pieces() {
		if err != nil {
			t.Fatal(err)
		}
		body := string(c.header) + text[p.offset:p.offset+p.length]
		if sum := sha256.Sum256([]byte(body)); p.sum != hex.EncodeToString(sum[:]) || p.number != len(bodies) {
			t.Fatalf("piece %d has another digest, or number %d", len(bodies), p.number)
		}
		if before := text[:p.offset]; strings.Count(before, "\n")+1 != p.line {
			t.Fatalf("piece %d is said to begin in line %d", p.number, p.line)
		}
		bodies, lines = append(bodies, body), append(lines, p.line)
	}
	return bodies, lines
}

func TestCut(t *testing.T) {
	t.Run("the pieces of lines are the file", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			lines := rapid.SliceOf(rapid.StringMatching(`[a-z"]{0,12}`)).Draw(t, "lines")
			end := rapid.SampledFrom([]string{"\n", "\r\n"}).Draw(t, "end")
			size := rapid.Int64Range(1, 60).Draw(t, "size")
			text := strings.Join(lines, end) + rapid.SampledFrom([]string{"", end}).Draw(t, "last")
			bodies, _ := cutUp(t, text, false, size)
			for i, body := range bodies {
				if i < len(bodies)-1 && (!strings.HasSuffix(body, "\n") || int64(len(body)) < size) || strings.TrimSpace(body) == "" {
					t.Fatalf("piece %d is %q", i, body)
				}
			}
			if got := strings.Join(bodies, ""); strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(text), " ") {
				t.Fatalf("the pieces are %q, of %q", got, text)
			}
		})
	})

	t.Run("the pieces of CSV have its rows, each below the header", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			cell := rapid.StringMatching(`[a-z,"\n]{1,8}`)
			rows := rapid.SliceOfN(rapid.SliceOfN(cell, 2, 2), 1, 20).Draw(t, "rows")
			var text strings.Builder
			text.WriteString(rapid.SampledFrom([]string{"", byteOrderMark}).Draw(t, "mark"))
			w := csv.NewWriter(&text)
			w.UseCRLF = rapid.Bool().Draw(t, "crlf")
			if err := w.WriteAll(rows); err != nil {
				t.Fatal(err)
			}
			var got [][]string
			bodies, _ := cutUp(t, text.String(), true, rapid.Int64Range(1, 60).Draw(t, "size"))
			for _, body := range bodies {
				part, err := csv.NewReader(strings.NewReader(body)).ReadAll()
				if err != nil || fmt.Sprint(part[0]) != fmt.Sprint(rows[0]) {
					t.Fatalf("%v, below %q, in %q", err, part, body)
				}
				got = append(got, part[1:]...)
			}
			if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", rows[1:]) {
				t.Fatalf("rows %q, want %q", got, rows[1:])
			}
		})
	})

	t.Run("a line without an end is not held in memory", func(t *testing.T) {
		c := newCutter(strings.NewReader("1\n"+strings.Repeat("x", mostRow+1)), false, 1)
		var failed error
		for _, err := range c.pieces() {
			failed = err
		}
		if failed == nil || !strings.Contains(failed.Error(), "line 2 is longer") {
			t.Errorf("%v", failed)
		}
	})
}
