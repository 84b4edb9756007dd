package upstream

import (
	"io"
	"testing"

	"github.com/callbatch/callbatch/batch"
)

func TestARequestSharesNoMemoryWithTheItem(t *testing.T) {
	p, err := New(Options{URL: "http://127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	item := []byte(`{"a":1}`)
	r, err := p.request(t.Context(), batch.Call{Item: item})
	if err != nil {
		t.Fatal(err)
	}
	clear(item) // ours again, while a transport may still be reading
	if body, err := io.ReadAll(r.Body); string(body) != `{"a":1}` || err != nil {
		t.Errorf("the body changed to %q, %v", body, err)
	}
}
