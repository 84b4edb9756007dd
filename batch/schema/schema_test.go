package schema

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/callbatch/callbatch/batch"
)

const order = `{
	"type": "object",
	"required": ["sku", "qty"],
	"properties": {
		"sku":   {"type": "string", "pattern": "^[A-Z]+-\\d+$", "maxLength": 10},
		"qty":   {"type": "integer", "minimum": 1, "maximum": 12345678901234567890},
		"price": {"type": "number", "multipleOf": 0.01},
		"on":    {"format": "date"},
		"kind":  {"enum": ["a", "b"]},
		"v":     {"const": 2},
		"to":    {"$ref": "#/$defs/address"},
		"tags":  {"type": "array", "uniqueItems": true, "minItems": 1, "items": {"type": "string"}},
		"a/b":   {"anyOf": [{"type": "string", "minLength": 3}, {"type": "object", "required": ["x", "y"]}]},
		"one":   {"oneOf": [{"type": "integer"}, {"minimum": 3}]},
		"never": false,
		"not":   {"not": {"type": "null"}},
		"has":   {"contains": {"type": "null"}},
		"names": {"propertyNames": {"maxLength": 3}}
	},
	"dependentRequired": {"price": ["on"]},
	"additionalProperties": false,
	"$defs": {"address": {"type": "object", "required": ["zip"]}}
}`

func compile(t testing.TB, text string) *Schema {
	t.Helper()
	s, err := Compile([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCheck(t *testing.T) {
	s := compile(t, order)
	for _, tt := range []struct{ name, item, want string }{
		{"what fits", `{"sku":"AB-1","qty":1,"price":0.07,"on":"2026-02-28","kind":"a","v":2,"to":{"zip":1},"tags":["x"],"a/b":"abc","one":3.5,"not":1,"has":[null],"names":{"abc":1}}`, ""},
		{"a large number is exact", `{"sku":"AB-1","qty":12345678901234567890}`, ""},
		{"and too large by one", `{"sku":"AB-1","qty":12345678901234567891}`, "/qty must be at most 12345678901234567890"},
		{"1.0 is an integer", `{"sku":"AB-1","qty":1.0}`, ""},
		{"members that are missing are named", `{}`, "/qty is required; /sku is required"},
		{"so are those too many", `{"sku":"AB-1","qty":1,"qnt":1}`, "/qnt is not among the members the schema knows: remove it"},
		{"the whole item", `[]`, " must be object, not array"},
		{"a type", `{"sku":7,"qty":"1"}`, "/qty must be integer, not string; /sku must be string, not number"},
		{"a pattern", `{"sku":"ab","qty":1}`, `/sku must match the pattern ^[A-Z]+-\d+$`},
		{"a length", `{"sku":"AB-12345678901","qty":1}`, "/sku must have at most 10 characters, not 14"},
		{"a minimum", `{"sku":"AB-1","qty":0}`, "/qty must be at least 1"},
		{"a step", `{"sku":"AB-1","qty":1,"price":0.075,"on":"2026-01-01"}`, "/price must be a multiple of 0.01"},
		{"a format", `{"sku":"AB-1","qty":1,"on":"2026-02-30"}`, "/on must be a valid date"},
		{"a choice", `{"sku":"AB-1","qty":1,"kind":"c"}`, `/kind must be one of "a", "b"`},
		{"a constant", `{"sku":"AB-1","qty":1,"v":1}`, `/v must be 2`},
		{"a reference", `{"sku":"AB-1","qty":1,"to":{}}`, `/to/zip is required`},
		{"an element", `{"sku":"AB-1","qty":1,"tags":["a",1]}`, `/tags/1 must be string, not number`},
		{"an element twice", `{"sku":"AB-1","qty":1,"tags":["a","b","a"]}`, `/tags must have no element twice: 0 and 2 are equal`},
		{"none of them", `{"sku":"AB-1","qty":1,"tags":[]}`, `/tags minItems: got 0, want 1`},
		{"alternatives", `{"sku":"AB-1","qty":1,"a/b":"ab"}`, `/a~1b fits none of the 2 alternatives of the schema; the nearest: must have at least 3 characters, not 2`},
		{"the nearest of them", `{"sku":"AB-1","qty":1,"a/b":{"x":1}}`, `/a~1b fits none of the 2 alternatives of the schema; the nearest: must be string, not object`},
		{"two at once", `{"sku":"AB-1","qty":1,"one":4}`, `/one fits alternatives 0 and 1 of the schema, and must fit one only`},
		{"what must not be", `{"sku":"AB-1","qty":1,"never":1,"not":null}`, `/never must not be there; /not is what the schema rules out`},
		{"what must be among others", `{"sku":"AB-1","qty":1,"has":[1]}`, `/has must have an element that fits what it has to contain`},
		{"a name", `{"sku":"AB-1","qty":1,"names":{"abcd":1}}`, ` there is a member whose name is not allowed: "abcd"`},
		{"what goes together", `{"sku":"AB-1","qty":1,"price":1}`, ` has "price" and so must have "on"`},
		{"an absurd number", `{"sku":"AB-1","qty":1e1000000000}`, "/qty a number that is checked has at most 400 digits and an exponent of at most 400"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, p := range s.Check([]byte(tt.item)) {
				if p.Code != Code || p.Index != -1 || p.Line != -1 {
					t.Errorf("got %+v", p)
				}
				got = append(got, p.Pointer+" "+p.Detail)
			}
			if diff := cmp.Diff(tt.want, strings.Join(got, "; ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCompile(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"not JSON", `{`, "the schema is not JSON"},
		{"a word that is none", `{"properties":{"qty":{"type":"int"}}}`, `the schema is not one: at "/properties/qty/type": `},
		{"not a schema", `[]`, `the schema is not one: at "": must be`},
		{"a file", `{"$ref":"file:///etc/passwd"}`, `the schema refers to "file:///etc/passwd": nothing is loaded`},
		{"a neighbour", `{"$ref":"common.json"}`, `the schema refers to "common.json": nothing is loaded`},
		{"the network", `{"$ref":"http://127.0.0.1/x"}`, `the schema refers to "http://127.0.0.1/x": nothing is loaded`},
		{"another kind of schema", `{"$schema":"http://127.0.0.1/x"}`, `the schema refers to "http://127.0.0.1/x": nothing is loaded`},
		{"a definition that is not there", `{"$ref":"#/$defs/x"}`, `$defs/x`},
		{"what is no pattern here", `{"pattern":"(?=x)"}`, `at "/pattern": must be a regular expression, without lookaround`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Compile([]byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "schema.invalid") {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
	t.Run("true, false and older drafts are schemas", func(t *testing.T) {
		if ps := compile(t, `true`).Check([]byte(`1`)); ps != nil {
			t.Errorf("got %v", ps)
		}
		if ps := compile(t, `false`).Check([]byte(`1`)); len(ps) != 1 {
			t.Errorf("got %v", ps)
		}
		old := compile(t, `{"$schema":"http://json-schema.org/draft-07/schema#","items":[{"type":"string"}]}`)
		if ps := old.Check([]byte(`[1]`)); len(ps) != 1 {
			t.Errorf("got %v", ps)
		}
	})
	t.Run("it is shown as it was written", func(t *testing.T) {
		if got := compile(t, "{\n \"maximum\": 1.50}").JSON(); string(got) != `{"maximum":1.50}` {
			t.Errorf("got %s", got)
		}
	})
}

func TestHostileItems(t *testing.T) {
	fill := func(one string, bytes int) string { return strings.Repeat(one+",", bytes/(len(one)+1)) + one }
	names := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"%d":1,`, i)
		}
		return b.String()
	}
	for _, tt := range []struct{ name, schema, item string }{
		{"elements that are all wrong", `{"items":{"type":"string"}}`, "[" + fill("1", 1<<20) + "]"},
		{"members that are all unknown", `{"properties":{"x":true},"additionalProperties":false}`, "{" + names(90_000) + `"x":1}`},
		{"large exponents", `{"items":{"multipleOf":0.01}}`, "[" + fill("1e-400", 1<<20) + "]"},
		{"long numbers", `{"items":{"maximum":1}}`, "[" + fill(strings.Repeat("9", 399), 1<<20) + "]"},
		{"many elements that must differ", `{"uniqueItems":true}`, "[" + fill("1", 1<<20) + "]"},
		{"many that do", `{"uniqueItems":true}`, func() string {
			var b strings.Builder
			for i := range 150_000 {
				fmt.Fprintf(&b, "%d,", i)
			}
			return "[" + b.String() + "1]"
		}()},
		{"a pattern that others backtrack over", `{"pattern":"^(a+)+$"}`, `"` + strings.Repeat("a", 1<<20-3) + `b"`},
		{"a long wrong string", `{"pattern":"^x$"}`, `"` + strings.Repeat("a", 1<<20-2) + `"`},
		{"a long wrong name", `{"additionalProperties":false}`, `{"` + strings.Repeat("a", 1<<20-10) + `":1}`},
		{"deep nesting", `{"$ref":"#/$defs/l","$defs":{"l":{"items":{"$ref":"#/$defs/l"},"type":"array"}}}`, strings.Repeat("[", 100) + strings.Repeat("]", 100)},
		{"a schema that refers to itself", `{"$ref":"#"}`, `1`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := compile(t, tt.schema)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			ps := s.Check([]byte(tt.item))
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			t.Logf("%d problems, %v, %d MiB", len(ps), took, (after.TotalAlloc-before.TotalAlloc)>>20)
			if took > time.Minute || len(ps) > batch.MaxProblems {
				t.Errorf("it took %v, %d problems", took, len(ps))
			}
			for _, p := range ps {
				if len(p.Pointer)+len(p.Detail) > 700 {
					t.Fatalf("a problem of %d bytes: %.100s", len(p.Pointer)+len(p.Detail), p.Detail)
				}
			}
		})
	}
}

func BenchmarkCheck(b *testing.B) {
	s := compile(b, order)
	item := []byte(`{"sku":"AB-1","qty":1,"price":0.07,"on":"2026-02-28","kind":"a","v":2,"to":{"zip":1},"tags":["x"]}`)
	b.SetBytes(int64(len(item)))
	for b.Loop() {
		if s.Check(item) != nil {
			b.Fatal("it does not fit")
		}
	}
}
