package intake_test

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/intake"
)

// zst returns a Zstandard frame of text.
func zst(t testing.TB, text string, o ...zstd.EOption) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, append(o, zstd.WithEncoderConcurrency(1))...)
	if err == nil {
		_, err = io.WriteString(w, text)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// segment returns a frame of text that is to be decoded into one piece of memory.
func segment(t testing.TB, text string) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithSingleSegment(true))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll([]byte(text), nil)
}

func TestZstd(t *testing.T) {
	const skippable = "\x50\x2a\x4d\x18\x03\x00\x00\x00abc"
	one, two := zst(t, "1\n"), zst(t, "2\n")
	badSum := bytes.Clone(one)
	badSum[len(badSum)-1] ^= 1
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	wide := strings.Repeat(lineItem(1), 100_000) // the window is as large as the text wants it
	for _, c := range []struct {
		name   string
		body   []byte
		want   []string
		code   batch.Code
		reason string
	}{
		{name: "a frame", body: one, want: []string{"1"}},
		{name: "frames are one stream", body: join(one, two, zst(t, "3")), want: []string{"1", "2", "3"}},
		{name: "frames to be skipped", body: join([]byte(skippable), one, []byte(skippable), two), want: []string{"1", "2"}},
		{name: "without a checksum", body: zst(t, "1\n", zstd.WithEncoderCRC(false)), want: []string{"1"}},
		{name: "a window of 16 MiB", body: zst(t, wide, zstd.WithWindowSize(16<<20)), code: batch.TooLarge, reason: "zstd_window_too_large"},
		{name: "one segment larger than the window", body: segment(t, wide), code: batch.TooLarge, reason: "zstd_window_too_large"},
		{name: "one segment", body: segment(t, "1\n2"), want: []string{"1", "2"}},
		{name: "wrong checksum", body: badSum, code: batch.Malformed, reason: "bad_zstd"},
		{name: "junk behind", body: join(one, []byte("junk")), code: batch.Malformed, reason: "bad_zstd"},
		{name: "a byte behind", body: join(one, []byte("(")), code: batch.Malformed, reason: "bad_zstd"},
		{name: "plain body", body: []byte("1\n2\n"), code: batch.Malformed, reason: "bad_zstd"},
		{name: "gzip", body: zip(t, "1\n"), code: batch.Malformed, reason: "bad_zstd"},
		{name: "zero bytes", code: batch.Malformed, reason: "bad_zstd"},
		{name: "a dictionary nobody has", body: []byte("\x28\xb5\x2f\xfd\x21\x07\x01\x09\x00\x00\x31"), code: batch.Malformed, reason: "bad_zstd"},
		{name: "nothing but frames to be skipped", body: []byte(skippable), code: batch.Invalid, reason: "empty_batch"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := intake.Request{ContentType: asNDJSON, ContentEncoding: "zstd", Body: bytes.NewReader(c.body), Length: int64(len(c.body))}
			stage, _, err := read(t, r, withProcessor)
			if c.code != "" {
				if e := refused(t, err); e.Code != c.code || e.Word() != c.reason {
					t.Errorf("got %s %s (%v), want %s %s", e.Code, e.Word(), e, c.code, c.reason)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, stage.raws()); d != "" {
				t.Error(d)
			}
		})
	}
	accept := func(t *testing.T, body io.Reader, o intake.Options) error {
		_, err := intake.Read(t.Context(), intake.Request{ContentType: asNDJSON, ContentEncoding: "zstd", Body: body, Length: -1}, &sink{}, o)
		return err
	}
	t.Run("a window of 8 MiB is wide enough for anybody", func(t *testing.T) {
		if err := accept(t, bytes.NewReader(zst(t, wide, zstd.WithWindowSize(8<<20))), intake.Options{Ratio: 1_000_000, Defaults: withProcessor.Defaults}); err != nil {
			t.Error(err)
		}
	})
	t.Run("a stream cut off anywhere but between frames", func(t *testing.T) {
		whole := join(one, []byte(skippable), two)
		borders := []int{len(one), len(one) + len(skippable)}
		for n := range len(whole) {
			switch err := accept(t, bytes.NewReader(whole[:n]), withProcessor); {
			case n == borders[0] || n == borders[1]:
				if err != nil {
					t.Errorf("behind byte %d: %v", n, err)
				}
			default:
				if e := refused(t, err); e.Reason != "bad_zstd" {
					t.Errorf("behind byte %d: %v", n, err)
				}
			}
			err := accept(t, io.MultiReader(bytes.NewReader(whole[:n]), iotest.ErrReader(io.ErrUnexpectedEOF)), withProcessor)
			if e := refused(t, err); e.Reason != "incomplete_body" || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("broken off behind byte %d: %v", n, err)
			}
		}
	})
	t.Run("a bomb", func(t *testing.T) {
		body := &counting{r: &repeat{text: string(zst(t, strings.Repeat(strings.Repeat(" ", 1<<20)+"1\n", 4)))}}
		err := accept(t, body, withProcessor)
		if e := refused(t, err); e.Code != batch.TooLarge || e.Reason != "ratio_too_large" || body.n > 1<<20 {
			t.Errorf("got %v after %d bytes", err, body.n)
		}
	})
	t.Run("the limit is of the decoded body", func(t *testing.T) {
		o := withProcessor
		o.Body = 1 << 20
		err := accept(t, bytes.NewReader(zst(t, strings.Repeat("1\n", 1<<20))), o)
		if e := refused(t, err); e.Reason != "body_too_large" {
			t.Errorf("got %v", err)
		}
	})
	for name, frame := range map[string]string{"empty frames": string(zst(t, "", zstd.WithZeroFrames(true))), "frames to be skipped": skippable} {
		t.Run(name+" without end are not free", func(t *testing.T) {
			o := withProcessor
			o.Body = 1 << 20
			err := accept(t, &repeat{text: frame}, o)
			if e := refused(t, err); e.Reason != "body_too_large" {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("a large frame to be skipped is not kept", func(t *testing.T) {
		body := io.MultiReader(strings.NewReader("\x50\x2a\x4d\x18\x00\x00\x00\x02"), io.LimitReader(&repeat{text: "0123456789abcdef"}, 32<<20), bytes.NewReader(one))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := accept(t, body, withProcessor); err != nil {
			t.Error(err)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
			t.Errorf("%d bytes allocated", n)
		}
	})
}
