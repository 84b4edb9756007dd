package api

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"testing"

	"github.com/callbatch/callbatch/batch/access"
)

func (w *world) putPart(path string, part int, body string) reply {
	w.t.Helper()
	return w.do("PUT", fmt.Sprintf("%s/parts/%d", path, part), w.keys[0][access.Submit], body, "Content-Type", "application/x-ndjson")
}

func TestABatchInParts(t *testing.T) {
	w := newWorld(t)
	opened := w.do("POST", "/v1/batches?open=true&processor=price&metadata.run=7", w.admin(), "").is(201, "")
	path := opened.header.Get("Location")
	var b batchView
	opened.decode(&b)
	if path != "/v1/batches/"+b.ID.String() || b.Status.String() != "open" || b.Counts.Total != 0 || b.Metadata["run"] != "7" {
		t.Errorf("it opens as %s at %s", opened.body, path)
	}
	seal := func(body string) reply {
		t.Helper()
		return w.do("POST", path+"/seal", w.admin(), body, "Content-Type", "application/json")
	}
	seal("").is(422, "empty_batch")

	var p partView
	const text = "1\n2\n"
	for range 2 {
		w.putPart(path, 2, text).is(200, "").decode(&p)
		sum := sha256.Sum256([]byte(text))
		if want := (partView{2, 2, 4, hex.EncodeToString(sum[:])}); p != want {
			t.Errorf("the part is %+v, want %+v", p, want)
		}
	}
	for _, again := range []string{"1\n2", "\n1\r\n 2 \r\n", "1\n2\n\n"} { // the same items
		first := p
		if w.putPart(path, 2, again).is(200, "").decode(&p); p != first {
			t.Errorf("%q makes the part %+v, it was %+v", again, p, first)
		}
	}
	w.do("PUT", path+"/parts/2", w.admin(), `{"items":[1, 2]}`, "Content-Type", "application/json").is(200, "")
	w.putPart(path, 2, "1\n3\n").is(409, "part_mismatch")
	w.putPart(path, 2, "12\n").is(409, "part_mismatch")
	w.putPart(path, 0, "0\n").is(200, "")
	w.do("PUT", path+"/parts/3", w.admin(), `{"items":[7]}`, "Content-Type", "application/json").is(200, "")
	w.do("DELETE", path+"/parts/2", w.admin(), "").is(204, "")
	w.do("DELETE", path+"/parts/2", w.admin(), "").is(204, "")
	if problem := seal("").is(409, "missing_parts").problem(); problem.Detail != "parts are missing: 1 to 2" {
		t.Errorf("what is missing is told as %q", problem.Detail)
	}
	w.putPart(path, 1, "1\n3\n").is(200, "")
	w.putPart(path, 2, "4\n").is(200, "")
	seal(`{"parts":3}`).is(409, "too_many_parts")
	seal(`{"parts":5}`).is(409, "missing_parts")
	seal(`{"parts":0}`).is(422, "out_of_range")

	var list struct{ Data []partView }
	w.do("GET", path+"/parts", w.keys[0][access.Submit], "").is(200, "").decode(&list)
	var counts []int
	for i, p := range list.Data {
		counts = append(counts, p.Items)
		if p.Part != i {
			t.Errorf("part %d is listed as the %d.", p.Part, i)
		}
	}
	if !slices.Equal(counts, []int{1, 2, 1, 1}) {
		t.Errorf("the parts have %v items", counts)
	}

	sealed := seal(`{"parts":4}`).is(202, "")
	sealed.decode(&b)
	if b.Status.String() != "queued" || b.Counts.Total != 5 || sealed.header.Get("Location") != path {
		t.Errorf("sealed it is %s", sealed.body)
	}
	seal("").is(409, "wrong_state")
	w.putPart(path, 4, "1\n").is(409, "wrong_state")
	w.do("DELETE", path+"/parts/0", w.admin(), "").is(409, "wrong_state")
	var item struct{ Input int }
	w.get(path+"/items/4").is(200, "").decode(&item)
	if item.Input != 7 {
		t.Errorf("the last item is %d", item.Input)
	}
}

func TestAPartThatIsWrong(t *testing.T) {
	w := newWorld(t)
	path := "/v1/batches/" + w.store.putOpen(w.tenants[0], 0).String()
	p := w.putPart(path, 7, "1\n\nx\n").is(400, "invalid_json").problem()
	if len(p.Errors) != 1 || p.Errors[0].Part == nil || *p.Errors[0].Part != 7 || *p.Errors[0].Index != 1 || *p.Errors[0].Line != 3 {
		t.Errorf("its place is %+v", p.Errors)
	}
	w.putPart(path, 7, "").is(422, "empty_part")
	w.do("PUT", path+"/parts/7?priority=low", w.admin(), "1\n", "Content-Type", "application/x-ndjson").is(422, "unknown_option")
	w.do("PUT", path+"/parts/7", w.admin(), `{"priority":"low","items":[1]}`, "Content-Type", "application/json").is(422, "option_beside_items")
	w.do("PUT", path+"/parts/10000", w.admin(), "1\n", "Content-Type", "application/x-ndjson").is(404, "no_such_path")
	w.do("PUT", path+"/parts/07", w.admin(), "1\n", "Content-Type", "application/x-ndjson").is(404, "no_such_path")
	w.do("POST", "/v1/batches?open=true", w.admin(), `{"processor":"price","items":[1]}`, "Content-Type", "application/json").is(422, "items_beside_options")
	w.do("POST", "/v1/batches?open=yes", w.admin(), "").is(400, "bad_open")
	w.do("POST", "/v1/batches?open=true&processor=none", w.admin(), "").is(422, "unknown_processor")
}

func TestPartsTogetherAreBounded(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Limits.Items = 3 })
	path := "/v1/batches/" + w.store.putOpen(w.tenants[0], 2).String()
	w.putPart(path, 2, "1\n2\n").is(413, "too_many_items")
	w.putPart(path, 2, "1\n").is(200, "")
}

func TestAnItemByItsID(t *testing.T) {
	w := newWorld(t)
	id := w.store.put(w.tenants[0], 2, 1)
	w.store.change(id, func(b *fakeBatch) { b.items[1].ID = "A 1" })
	var item struct {
		Index int
		ID    string
	}
	w.get("/v1/batches/"+id.String()+"/items?id=A%201").is(200, "").decode(&item)
	if item.Index != 1 || item.ID != "A 1" {
		t.Errorf("it is %+v", item)
	}
	w.get("/v1/batches/"+id.String()+"/items?id=1").is(404, "not_found")
	w.get("/v1/batches/"+id.String()+"/items").is(400, "missing_parameter")
}
