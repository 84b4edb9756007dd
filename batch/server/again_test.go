package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/server"
)

// counting is a processor that counts how often it sees each item.
func counting() (p server.Processor, calls func() map[string]int) {
	var mu sync.Mutex
	seen := map[string]int{}
	p.Do = batch.ProcessorFunc(func(_ context.Context, c batch.Call) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		seen[string(c.Item)]++
		return []byte("null"), nil
	})
	return p, func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		return seen
	}
}

// send sends a request with headers given in pairs and decodes the answer.
func (s *site) send(method, path, body string, into any, headers ...string) *http.Response {
	req, err := http.NewRequest(method, s.base+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Error(err)
		return &http.Response{}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && len(b) > 0 {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		s.t.Errorf("%s %s: %s %v", method, path, b, err)
	}
	return res
}

const lines = "application/x-ndjson"

func TestADuplicateSubmissionDoesNoWorkTwice(t *testing.T) {
	p, calls := counting()
	s := newSite(t, server.Options{Processors: map[string]server.Processor{"count": p}, DefaultProcessor: "count"})
	const items = 500
	body := strings.Repeat(" ", 3)
	for i := range items {
		body += fmt.Sprintf("%d\n", i)
	}
	var mu sync.Mutex
	ids, refused := map[string]int{}, 0
	submit := func() {
		var b struct{ ID, Code string }
		res := s.send("POST", "/v1/batches", body, &b, "Content-Type", lines, "Idempotency-Key", "nightly-run-7")
		mu.Lock()
		defer mu.Unlock()
		switch {
		case res.StatusCode == http.StatusAccepted:
			ids[b.ID]++
		case b.Code == "idempotency_in_progress":
			refused++
		default:
			t.Errorf("answered with %d %s", res.StatusCode, b.Code)
		}
	}
	var twins sync.WaitGroup
	for range 8 {
		twins.Go(submit)
	}
	twins.Wait()
	for range 2 {
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		s.start()
		submit()
	}
	if len(ids) != 1 {
		t.Fatalf("it became %v", ids)
	}
	for id, times := range ids {
		if times+refused != 10 || times < 3 {
			t.Errorf("it was answered %d times and refused %d times", times, refused)
		}
		s.ended(id)
	}
	if len(calls()) != items {
		t.Errorf("%d items were worked on, of %d", len(calls()), items)
	}
	for item, n := range calls() {
		if n != 1 {
			t.Errorf("item %s was worked on %d times", item, n)
		}
	}
}

func TestABrokenUploadGoesOn(t *testing.T) {
	p, calls := counting()
	s := newSite(t, server.Options{Processors: map[string]server.Processor{"count": p}, DefaultProcessor: "count"})
	var b seen
	if res := s.send("POST", "/v1/batches?open=true&id_field=/id", "", &b); res.StatusCode != http.StatusCreated {
		t.Fatalf("opened with %d", res.StatusCode)
	}
	path := "/v1/batches/" + b.ID
	part := func(n int) string {
		var text strings.Builder
		for i := n * 300; i < (n+1)*300; i++ {
			fmt.Fprintf(&text, "{\"id\":%d}\n", i)
		}
		return text.String()
	}
	put := func(n int, into any) int {
		return s.send("PUT", fmt.Sprint(path, "/parts/", n), part(n), into, "Content-Type", lines).StatusCode
	}
	var sent struct{ SHA256 string }
	if put(2, &sent) != http.StatusOK {
		t.Fatal("the last part was not taken")
	}
	half, writer := io.Pipe()
	req, err := http.NewRequest("PUT", s.base+path+"/parts/0", half)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", lines)
	go func() {
		io.WriteString(writer, part(0)[:1000])
		writer.CloseWithError(io.ErrClosedPipe)
	}()
	if res, err := http.DefaultTransport.RoundTrip(req); err == nil {
		res.Body.Close()
		t.Fatalf("half a part was answered with %d", res.StatusCode)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s.start()

	var there struct {
		Data []struct {
			Part   int
			SHA256 string
		}
	}
	s.get(path+"/parts", &there)
	if len(there.Data) != 1 || there.Data[0].Part != 2 || there.Data[0].SHA256 != sent.SHA256 {
		t.Fatalf("after the restart there is %+v", there)
	}
	for n := range 2 {
		if put(n, &sent) != http.StatusOK {
			t.Fatalf("part %d was not taken", n)
		}
	}
	if res := s.send("POST", path+"/seal", `{"parts":3}`, &b, "Content-Type", "application/json"); res.StatusCode != http.StatusAccepted {
		t.Fatalf("sealed with %d", res.StatusCode)
	}
	if b = s.ended(b.ID); b.Counts.Succeeded != 900 || len(calls()) != 900 {
		t.Errorf("it ended as %+v, with %d items worked on", b, len(calls()))
	}
	for i, line := range s.results(b.ID, "") {
		if !strings.HasPrefix(line, fmt.Sprintf(`{"index":%d,"id":"%d",`, i, i)) {
			t.Fatalf("result %d is %s", i, line)
		}
	}
	var item struct{ Index int }
	if s.get(path+"/items?id=777", &item); item.Index != 777 {
		t.Errorf("item 777 is at %d", item.Index)
	}
}
