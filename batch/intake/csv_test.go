package intake_test

import (
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/intake"
)

const asCSV = "text/csv"

func TestCSVIsAccepted(t *testing.T) {
	long := strings.Repeat("x", 200_000)
	for _, c := range []struct {
		name, body string
		want       []string
	}{
		{"rows", "sku,qty\nA,2\nB,3\n", []string{`{"sku":"A","qty":"2"}`, `{"sku":"B","qty":"3"}`}},
		{"members in the order of the header", "b,a\n1,2", []string{`{"b":"1","a":"2"}`}},
		{"no line feed at the end", "a\n1", []string{`{"a":"1"}`}},
		{"CRLF", "a,b\r\n1,2\r\n3,4\r\n", []string{`{"a":"1","b":"2"}`, `{"a":"3","b":"4"}`}},
		{"a carriage return for the last line feed", "a,b\r\n1,2\r", []string{`{"a":"1","b":"2"}`}},
		{"one byte order mark", "\ufeffa\n1\n", []string{`{"a":"1"}`}},
		{"one byte order mark before a quote", "\ufeff\"a\"\n1\n", []string{`{"a":"1"}`}},
		{"empty lines", "\n\r\na,b\n\n1,2\r\n\r\n\n3,4\n\n", []string{`{"a":"1","b":"2"}`, `{"a":"3","b":"4"}`}},
		{"an empty value in the only column", "a\n\"\"\n", []string{`{"a":""}`}},
		{"empty values", "a,b,c\n,,\n", []string{`{"a":"","b":"","c":""}`}},
		{"white space is kept", "a, b \n 1 ,\t\n", []string{`{"a":" 1 "," b ":"\t"}`}},
		{"quotes", "\"a\",\"b\"\n\"1\",\"2\"\n", []string{`{"a":"1","b":"2"}`}},
		{"commas in quotes", "a,b\n\"1,5\",2\n", []string{`{"a":"1,5","b":"2"}`}},
		{"quotes in quotes", "a,b\n\"5\"\" disk\",\"\"\"\"\n", []string{`{"a":"5\" disk","b":"\""}`}},
		{"lines in quotes", "a,b\n\"1\n\n2\",\"3\r\n4\"\n5,6\n", []string{`{"a":"1\n\n2","b":"3\r\n4"}`, `{"a":"5","b":"6"}`}},
		{"a carriage return in quotes", "a\n\"1\r2\"\n", []string{`{"a":"1\r2"}`}},
		{"a name of two lines", "\"price\n(EUR)\",b\n1,2\n", []string{`{"price\n(EUR)":"1","b":"2"}`}},
		{"a name to be escaped", "\"a\"\"\\\",b\n1,2\n", []string{`{"a\"\\":"1","b":"2"}`}},
		{"what JSON escapes", "a\n\\ \x01 \x7f <&> \u2028 😀\n", []string{"{\"a\":\"\\\\ \\u0001 \x7f <&> \u2028 😀\"}"}},
		{"numbers stay text", "a,b,c\n007,1e5,null\n", []string{`{"a":"007","b":"1e5","c":"null"}`}},
		{"semicolons are no commas", "a;b\n1;2\n", []string{`{"a;b":"1;2"}`}},
		{"a row longer than any buffer", "a,b\n" + long + ",\"" + long + "\"\n", []string{`{"a":"` + long + `","b":"` + long + `"}`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, slow := range []bool{false, true} {
				r := request(asCSV, c.body)
				if slow {
					r.Body, r.Length = iotest.OneByteReader(r.Body), -1
				}
				stage, _, err := read(t, r, withProcessor)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(c.want, stage.raws()); d != "" {
					t.Error(d)
				}
			}
		})
	}
}

func TestCSVIsRefused(t *testing.T) {
	for _, c := range []struct {
		name, body  string
		code        batch.Code
		reason      string
		index, line int // of the first problem; line 0: it has none
		says        string
	}{
		{"nothing", "", batch.Invalid, "empty_batch", 0, 0, ""},
		{"a header alone", "a,b\n", batch.Invalid, "empty_batch", 0, 0, ""},
		{"a row too short", "a,b\n1,2\n\n3\n", batch.Malformed, "ragged_row", 1, 4, "the row has 1 fields and the header 2"},
		{"a row too long", "a,b\n1,2,3\n", batch.Malformed, "ragged_row", 0, 2, "the row has 3 fields"},
		{"a comma at the end of a row", "a,b\n1,2,\n", batch.Malformed, "ragged_row", 0, 2, ""},
		{"the line where a row begins", "a,b\n\"1\n2\",3\n\"4\n\n5\"\n", batch.Malformed, "ragged_row", 1, 4, ""},
		{"a name that is empty", "a,,c\n1,2,3\n", batch.Malformed, "bad_column", -1, 1, "column 2 has no name"},
		{"a comma at the end of the header", "\na,b,\n1,2,\n", batch.Malformed, "bad_column", -1, 2, "column 3"},
		{"a name twice", "a,b,a\n1,2,3\n", batch.Malformed, "bad_column", -1, 1, `named "a"`},
		{"a name twice, once quoted", "a,\"a\"\n1,2\n", batch.Malformed, "bad_column", -1, 1, ""},
		{"a second byte order mark", "\ufeff\ufeffa\n1\n", batch.Malformed, "bad_column", -1, 1, "byte order mark"},
		{"a quote inside a field", "a,b\n1,5\" disk\n", batch.Malformed, "invalid_csv", 0, 2, "double the quote"},
		{"a quote behind white space", "a,b\n1, \"2\"\n", batch.Malformed, "invalid_csv", 0, 2, ""},
		{"text behind a quote", "a,b\n1,2\n\"3\"x,4\n", batch.Malformed, "invalid_csv", 1, 3, "behind its quote"},
		{"a quote that is never closed", "a,b\n1,2\n3,\"4\n5,6\n", batch.Malformed, "invalid_csv", 1, 3, "begins on this line"},
		{"a quote that the end opens", "a\n\"", batch.Malformed, "invalid_csv", 0, 2, ""},
		{"a header with a quote never closed", "a,\"b\n1,2\n", batch.Malformed, "invalid_csv", -1, 1, ""},
		{"lines of old", "a,b\r1,2\r3,4", batch.Malformed, "invalid_csv", -1, 1, "LF or CRLF"},
		{"a lone carriage return", "a,b\n1,2\n3\r,4\n", batch.Malformed, "invalid_csv", 1, 3, ""},
		{"two carriage returns", "a\n1\r\r\n", batch.Malformed, "invalid_csv", 0, 2, ""},
		{"Latin-1", "a\nx\ncaf\xe9\n", batch.Malformed, "invalid_utf8", 1, 3, ""},
		{"Latin-1 in quotes", "a\n\"x\ncaf\xe9\n\"\n", batch.Malformed, "invalid_utf8", 0, 2, ""},
		{"Latin-1 in the header", "caf\xe9\nx\n", batch.Malformed, "invalid_utf8", -1, 1, ""},
		{"a surrogate", "a\n\xed\xa0\x80\n", batch.Malformed, "invalid_utf8", 0, 2, ""},
		{"UTF-16", "\xff\xfea\x00\n\x001\x00", batch.Malformed, "invalid_utf8", 0, 0, "UTF-16"},
		{"a NUL", "aaaa\n1\n2\x00\n", batch.Malformed, "nul", 1, 3, "NUL"},
		{"a NUL in the header", "aaaa\x00\n1\n", batch.Malformed, "nul", -1, 1, "NUL"},
		{"more columns than a spreadsheet", strings.Join(numbers(16_385), ","), batch.TooLarge, "too_many_columns", 0, 0, "16384"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, slow := range []bool{false, true} {
				r := request(asCSV, c.body)
				if slow {
					r.Body, r.Length = iotest.OneByteReader(r.Body), -1
				}
				_, _, err := read(t, r, withProcessor)
				e := refused(t, err)
				if e.Code != c.code || e.Word() != c.reason || !strings.Contains(e.Message, c.says) {
					t.Errorf("got %s %s (%v), want %s %s", e.Code, e.Word(), e, c.code, c.reason)
				}
				if c.line != 0 && (len(e.Places) == 0 || e.Places[0].Line != c.line || e.Places[0].Index != c.index) {
					t.Errorf("got places %+v, want index %d, line %d first", e.Places, c.index, c.line)
				}
			}
		})
	}
}

// numbers returns the numbers from 0 on as text.
func numbers(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprint(i))
	}
	return out
}

func TestCSVProblemsAreListed(t *testing.T) {
	r := request(asCSV, "id,n\na,1\n\nb\na,2\nc\xff,3\n\"a\",4\nd,5\n")
	r.Query = url.Values{"id_field": {"/id"}}
	_, _, err := read(t, r, withProcessor)
	e := refused(t, err)
	var got []string
	for _, p := range e.Places {
		got = append(got, fmt.Sprintf("%d %d %s %s", p.Index, p.Line, p.Pointer, p.Code))
	}
	want := []string{"1 4  ragged_row", "2 5 /id duplicate_id", "3 6  invalid_utf8", "4 7 /id duplicate_id"}
	if d := cmp.Diff(want, got); d != "" || e.Code != batch.Malformed {
		t.Errorf("%s %s", e.Code, d)
	}
}

func TestCSVOptionsAndIDs(t *testing.T) {
	r := request(asCSV+"; charset=utf-8; header=present", "id,n\nA-1,1\n\"B\"\"2\",2\n")
	r.Query = url.Values{"id_field": {"/id"}, "priority": {"low"}}
	stage, o, err := read(t, r, withProcessor)
	if err != nil || o.Priority != batch.PriorityLow {
		t.Fatal(o, err)
	}
	if d := cmp.Diff([]string{"A-1", `B"2`}, stage.ids()); d != "" {
		t.Error(d)
	}
	_, _, err = read(t, request(asCSV+"; header=absent", "1,2\n"), withProcessor)
	if e := refused(t, err); e.Code != batch.Unsupported || !strings.Contains(e.Message, "header line") {
		t.Errorf("got %s: %v", e.Word(), e)
	}
}

func TestCSVLimits(t *testing.T) {
	item := `{"a":"1234","b":"5678"}`
	for _, c := range []struct {
		name, body string
		limits     intake.Options
		reason     string
		line       int
		setting    string
	}{
		{"an item of exactly the limit", "a,b\n1234,5678\n", intake.Options{ItemBytes: len(item)}, "", 0, ""},
		{"an item one byte too long", "a,b\n1234,5678\n\"1234\",56789\n", intake.Options{ItemBytes: len(item)}, "line_too_long", 3, "limits.item_bytes"},
		{"an item too long by its escapes", "a,b\n1234,\x01678\n", intake.Options{ItemBytes: len(item)}, "line_too_long", 2, "limits.item_bytes"},
		{"one item more", "a\n1\n2\n3\n4\n", intake.Options{Items: 3}, "too_many_items", 5, "limits.items"},
		{"as many items as there may be", "a\n1\n2\n3\n", intake.Options{Items: 3}, "", 0, ""},
		{"a body one byte too long", "a\n1\n", intake.Options{Body: 3}, "body_too_large", 0, "limits.body_bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.limits.Defaults = withProcessor.Defaults
			_, _, err := read(t, request(asCSV, c.body), c.limits)
			if c.reason == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			e := refused(t, err)
			if e.Code != batch.TooLarge || e.Word() != c.reason || !strings.Contains(e.Message, c.setting) || c.line > 0 && e.Places[0].Line != c.line {
				t.Errorf("got %s %s %+v: %v", e.Code, e.Word(), e.Places, e)
			}
		})
	}
	for name, text := range map[string][2]string{
		"one field without end":        {"a\n", "x"},
		"one quoted field without end": {"a\n\"", "x"},
		"quoted lines without end":     {"a\n\"", "\n"},
		"quoted quotes without end":    {"a\n\"", `""`},
		"a header without end":         {"", "x,"},
		"a row without end":            {"a\n", "x,"},
		"a row of quotes without end":  {"a\n", `"",`},
		"a row of lines without end":   {"a\n", "\"\n\","},
	} {
		t.Run(name, func(t *testing.T) {
			body := &counting{r: io.MultiReader(strings.NewReader(text[0]), &repeat{text: text[1]})}
			_, _, err := read(t, intake.Request{ContentType: asCSV, Body: body, Length: -1}, withProcessor)
			refused(t, err)
			if body.n > 3<<20 {
				t.Errorf("read %d bytes before saying %v", body.n, err)
			}
		})
	}
}
