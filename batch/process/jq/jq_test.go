package jq_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/process/jq"
)

func compile(tb testing.TB, program string, o jq.Options) *jq.Processor {
	tb.Helper()
	p, err := jq.New(program, o)
	if err != nil {
		tb.Fatalf("New(%q): %v", program, err)
	}
	return p
}

func failureOf(t *testing.T, err error) *batch.Failure {
	t.Helper()
	var f *batch.Failure
	if !errors.As(err, &f) {
		t.Fatalf("got error %v, want a failure", err)
	}
	return f
}

func TestAProgramGivesTheOutput(t *testing.T) {
	for _, c := range []struct{ program, item, want string }{
		{`{total: (.qty * .price)}`, `{"qty":3,"price":19.5}`, `{"total":58.5}`},
		{`.`, `{"b": 1,  "a":[9007199254740993, 1e400, -0.0]}`, `{"b": 1,  "a":[9007199254740993, 1e400, -0.0]}`},
		{` . # as it is`, "{\"a\":\r\n [1,\n\"\\n\"]}", `{"a":[1,"\n"]}`},
		{`{a}`, `{"a":9007199254740993,"b":1}`, `{"a":9007199254740993}`},
		{`.[0]`, `[1e400]`, `1e400`},
		{`.[0]`, `[1.10]`, `1.10`},
		{`. + 1`, `9007199254740993`, `9007199254740994`},
		{`. * .`, `123456789012345678901234567890`, `15241578753238836750495351562536198787501905199875019052100`},
		{`[.[] | . + "!"]`, `["<>&","ü","\ud83d\ude00"]`, `["<>&!","ü!","😀!"]`},
		{`.z = 1`, `{"b":true,"a":null}`, `{"a":null,"b":true,"z":1}`},
		{`[., null]`, `"\u0000\"\\"`, `["\u0000\"\\",null]`},
		{`.a?`, `{"a":false}`, `false`},
		{`1, halt, 2`, `null`, `1`},
		{`[env, $ENV]`, `null`, `[{},{}]`},
		{`nan`, `null`, `null`},
		{`try error("x") catch .`, `null`, `"x"`},
		{`first(range(10))`, `{}`, `0`},
	} {
		t.Run(c.program, func(t *testing.T) {
			got, err := compile(t, c.program, jq.Options{}).Process(t.Context(), batch.Call{Item: []byte(c.item)})
			if err != nil || string(got) != c.want {
				t.Errorf("got %s, %v, want %s", got, err, c.want)
			}
		})
	}
}

func TestAProgramFailsItsItemForGood(t *testing.T) {
	for _, c := range []struct{ program, item, code, message string }{
		{`empty`, `1`, batch.CodeBadOutput, "the program gave no value, not exactly one"},
		{`halt`, `1`, batch.CodeBadOutput, "the program gave no value, not exactly one"},
		{`.[]`, `[1,2]`, batch.CodeBadOutput, "the program gave more than one value"},
		{`repeat(1)`, `1`, batch.CodeBadOutput, "the program gave more than one value"},
		{`error("no " + .)`, `"stock"`, batch.CodeProcessorError, "no stock"},
		{`error`, `{"code":9007199254740993}`, batch.CodeProcessorError, `{"code":9007199254740993}`},
		{`error(null)`, `1`, batch.CodeProcessorError, "null"},
		{`1, error("late")`, `1`, batch.CodeProcessorError, "late"},
		{`"bye" | halt_error`, `1`, batch.CodeProcessorError, "bye"},
		{`.a + 1`, `{"a":"x"}`, batch.CodeProcessorError, `cannot add: string ("x") and number (1)`},
		{`1 / .`, `0`, batch.CodeProcessorError, `cannot divide number (1) by: number (0)`},
		{`"m" | modulemeta`, `1`, batch.CodeProcessorError, `cannot load module: "m"`},
		{`{("/w==" | @base64d): 1, ("/g==" | @base64d): 2}`, `1`, batch.CodeBadOutput, "the program gave a value that JSON cannot express"},
		{`reduce range(20000) as $i (1; [.])`, `1`, batch.CodeBadOutput, "the output is nested deeper than 10000"},
		{`.a`, `{"a":1`, batch.CodeProcessorError, "the item is not one JSON value"},
		{`.a`, `{"a":1} 2`, batch.CodeProcessorError, "the item is not one JSON value"},
	} {
		t.Run(c.program, func(t *testing.T) {
			out, err := compile(t, c.program, jq.Options{}).Process(t.Context(), batch.Call{Item: []byte(c.item)})
			f := failureOf(t, err)
			if f.Code != c.code || f.Message != c.message || f.Retry || out != nil {
				t.Errorf("got %q, %s, want %s: %s", out, f, c.code, c.message)
			}
		})
	}
}

func TestMessagesAreBounded(t *testing.T) {
	for _, program := range []string{
		`error("é" * 100000)`,
		`error("a" + "é" * 100000)`,
		`reduce range(60) as $i (1; [., .]) | error`, // 2^60 numbers, if written out
		`"x" * 100000 | halt_error`,
		`"\("x" * 100000)" + 1`,
	} {
		_, err := compile(t, program, jq.Options{}).Process(t.Context(), batch.Call{Item: []byte(`1`)})
		f := failureOf(t, err)
		if f.Code != batch.CodeProcessorError || len(f.Message) > 1100 || strings.Contains(f.Message, "\uFFFD") {
			t.Errorf("%s: got code %s and a message of %d bytes", program, f.Code, len(f.Message))
		}
	}
}

func TestOutputsAreBounded(t *testing.T) {
	t.Run("an output of exactly the limit passes, one more byte does not", func(t *testing.T) {
		for _, program := range []string{`.`, `. + ""`, `. as $x | $x`} {
			p := compile(t, program, jq.Options{MaxOutput: 8})
			if out, err := p.Process(t.Context(), batch.Call{Item: []byte(`"123456"`)}); err != nil || len(out) != 8 {
				t.Errorf("%s: got %s, %v", program, out, err)
			}
			_, err := p.Process(t.Context(), batch.Call{Item: []byte(`"1234567"`)})
			if f := failureOf(t, err); f.Code != batch.CodeOutputTooLarge {
				t.Errorf("%s: got %s", program, f)
			}
		}
	})
	for _, program := range []string{
		`reduce range(60) as $i (1; [., .])`,        // shared parts: 2^60 numbers
		`reduce range(60) as $i ({}; {a: ., b: .})`, // the same with members
		`"a" * 1048577`,                                  // long by itself
		`"\u0000" * 200000`,                              // long once escaped
		`reduce range(24) as $i (3; . * .)`,              // a number of 8 million digits
		`[range(600000)]`,                                // many
		`{("k" * 600000): 1, ("l" * 600000): 1}`,         // long names
		`reduce range(60) as $i ([]; [., .]) | {a: [.]}`, // without a single scalar
	} {
		t.Run(program, func(t *testing.T) {
			_, err := compile(t, program, jq.Options{}).Process(t.Context(), batch.Call{Item: []byte(`1`)})
			if f := failureOf(t, err); f.Code != batch.CodeOutputTooLarge || f.Retry {
				t.Errorf("got %s", f)
			}
		})
	}
}

func TestTime(t *testing.T) {
	endless := compile(t, `def f: f; f`, jq.Options{})
	t.Run("a program that does not end times out, and is not tried again", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := endless.Process(ctx, batch.Call{Item: []byte(`1`)})
		if f := failureOf(t, err); f.Code != batch.CodeTimeout || f.Retry {
			t.Errorf("got %+v", f)
		}
	})
	t.Run("a program cannot catch the end of its time", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := compile(t, `try (def f: f; f) catch "caught"`, jq.Options{}).Process(ctx, batch.Call{Item: []byte(`1`)})
		if f := failureOf(t, err); f.Code != batch.CodeTimeout {
			t.Errorf("got %+v", f)
		}
	})
	t.Run("a stop from outside is no failure of the item", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := endless.Process(ctx, batch.Call{Item: []byte(`1`)})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestNewSaysWhatIsWrongAndWhere(t *testing.T) {
	for _, c := range []struct{ program, want string }{
		{"{a:", `jq program at line 1, column 4: unexpected EOF`},
		{".a\n| \"ü\" |)", `jq program at line 2, column 8: unexpected token ")"`},
		{`"abc`, `jq program at line 1, column 5: unterminated string literal`},
		{"", `jq program: missing query (try ".")`},
		{"total(.a)", `jq program: function not defined: total/1`},
		{"$__prog_args", `jq program: variable not defined: $__prog_args`},
		{`import "a" as a; .`, `jq program: cannot load module: "a"`},
		{`include "a"; .`, `jq program: cannot load module: "a"`},
		{`import "a" as $a; .`, `jq program: cannot load module: "a"`},
		{"input", `jq program: input(s)/0 is not allowed`},
		{"[inputs]", `jq program: input(s)/0 is not allowed`},
		{"debug", `jq program: function not defined: debug/0`},
		{"stderr", `jq program: function not defined: stderr/0`},
		{"input_filename", `jq program: function not defined: input_filename/0`},
	} {
		p, err := jq.New(c.program, jq.Options{})
		if err == nil || p != nil || err.Error() != c.want {
			t.Errorf("New(%q): got %v, want %s", c.program, err, c.want)
		}
	}
}

func TestManyCallsAtOnceDoNotMix(t *testing.T) {
	p := compile(t, `{n, list: ([1, 2, {a: 3}] | .[2].a += 1 | .[0] = 9)} | .list += [.n]`, jq.Options{})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 50 {
				n := g*1000 + i
				want := fmt.Sprintf(`{"list":[9,2,{"a":4},%d],"n":%d}`, n, n)
				got, err := p.Process(t.Context(), batch.Call{Item: fmt.Appendf(nil, `{"n":%d}`, n)})
				if err != nil || string(got) != want {
					t.Errorf("got %s, %v, want %s", got, err, want)
				}
			}
		})
	}
	wg.Wait()
}

func TestTheOutputIsNotTheItemsMemory(t *testing.T) {
	for _, program := range []string{`.`, `. as $x | $x`, `.a`} {
		item := []byte(`{"a":"bbbb"}`)
		out, err := compile(t, program, jq.Options{}).Process(t.Context(), batch.Call{Item: item})
		if err != nil {
			t.Fatal(err)
		}
		clear(item)
		if !bytes.Contains(out, []byte("bbbb")) {
			t.Errorf("%s: the output changed with the item's memory: %q", program, out)
		}
	}
}

func FuzzAnOutputIsOneLineOfJSON(f *testing.F) {
	for _, item := range []string{`{"a":[1,2.50,"x\n"]}`, "[\n1e400]", `"\ud800"`, `{"a":1,"a":2}`, `-0`, ``} {
		f.Add([]byte(item))
	}
	same, wrap := compile(f, `.`, jq.Options{}), compile(f, `[.]`, jq.Options{})
	f.Fuzz(func(t *testing.T, item []byte) {
		whole := bytes.Clone(item)
		for _, p := range []*jq.Processor{same, wrap} {
			out, err := p.Process(t.Context(), batch.Call{Item: item})
			valid := jsontext.Value(whole).IsValid()
			if p == wrap && valid != (err == nil) {
				t.Fatalf("%q is valid: %v, but got %v", item, valid, err)
			}
			if valid && (!jsontext.Value(out).IsValid() || bytes.ContainsAny(out, "\r\n")) {
				t.Fatalf("%q gave %q", item, out)
			}
		}
		if !bytes.Equal(item, whole) {
			t.Fatalf("%q was changed to %q", whole, item)
		}
	})
}

func BenchmarkProcess(b *testing.B) {
	item := []byte(`{"sku":"A-17","qty":3,"price":19.99,"tags":["a","b"],"note":"hello wörld","address":{"street":"Main 1","zip":"12345"}}`)
	for _, program := range []string{`.`, `.sku`, `{total: (.qty * .price)}`, `. + {total: (.qty * .price)}`} {
		b.Run(program, func(b *testing.B) {
			p := compile(b, program, jq.Options{})
			ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
			defer cancel()
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := p.Process(ctx, batch.Call{Item: item}); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
