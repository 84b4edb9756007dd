package main_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// api asks the server over HTTP, as any client would.
type api struct {
	base   string
	server *victim
	http   *http.Client
}

func newAPI(v *victim) *api {
	return &api{base: "http://" + v.addr, server: v, http: &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
		Timeout:   2 * time.Minute,
	}}
}

// answer is a complete answer of the server.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// request sends a request with headers given in pairs.
func (a *api) request(ctx context.Context, method, path, contentType string, body io.Reader, headers ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, body)
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(a.server.path("key"))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(key)))
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return a.http.Do(req)
}

// do returns the complete answer; an error means that none arrived.
func (a *api) do(ctx context.Context, method, path, contentType string, body io.Reader, headers ...string) (answer, error) {
	res, err := a.request(ctx, method, path, contentType, body, headers...)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, b}, err
}

// is reports whether the answer is a problem with a code.
func (a answer) is(status int, code string) bool {
	var p struct{ Code string }
	return a.status == status && json.Unmarshal(a.body, &p) == nil && p.Code == code
}

// post sends a JSON document, or nothing.
func (a *api) post(ctx context.Context, path, body string) (answer, error) {
	contentType := ""
	if body != "" {
		contentType = "application/json"
	}
	return a.do(ctx, http.MethodPost, path, contentType, strings.NewReader(body))
}

// unexpected is a complete answer that should have been another.
type unexpected struct {
	path string
	answer
}

func (u unexpected) Error() string { return fmt.Sprintf("%s: %d %s", u.path, u.status, u.body) }

// get reads a JSON document that must be there.
func (a *api) get(ctx context.Context, path string, into any) error {
	ans, err := a.do(ctx, http.MethodGet, path, "", nil)
	switch {
	case err != nil:
		return err
	case ans.status != http.StatusOK:
		return unexpected{path, ans}
	}
	if err := json.Unmarshal(ans.body, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func (a *api) batch(ctx context.Context, id string) (*batchDoc, error) {
	var b batchDoc
	return &b, a.get(ctx, "/v1/batches/"+id, &b)
}

// results calls line for every complete result line that arrives, also if the
// answer breaks off. The line is valid until the next.
func (a *api) results(ctx context.Context, id string, line func([]byte) error) error {
	path := "/v1/batches/" + id + "/results"
	res, err := a.request(ctx, http.MethodGet, path, "", nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return unexpected{path, answer{status: res.StatusCode}}
	}
	r := bufio.NewReaderSize(res.Body, 64<<10)
	for {
		b, err := r.ReadSlice('\n')
		if err == io.EOF && len(b) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if err := line(b[:len(b)-1]); err != nil {
			return violation{err}
		}
	}
}

// violation marks what no crash excuses.
type violation struct{ error }

func (a *api) item(ctx context.Context, id string, index int) (itemDoc, error) {
	var it itemDoc
	return it, a.get(ctx, fmt.Sprintf("/v1/batches/%s/items/%d", id, index), &it)
}

// batches walks the whole list.
func (a *api) batches(ctx context.Context) ([]batchDoc, error) {
	return pages[batchDoc](ctx, a, "/v1/batches")
}

func (a *api) messages(ctx context.Context, id string) ([]messageDoc, error) {
	return pages[messageDoc](ctx, a, "/v1/batches/"+id+"/messages")
}

// delivered returns the last messages that are delivered, newest first.
func (a *api) delivered(ctx context.Context) ([]messageDoc, error) {
	var page struct{ Data []messageDoc }
	err := a.get(ctx, "/v1/messages?status=delivered&limit=200", &page)
	return page.Data, err
}

func pages[T any](ctx context.Context, a *api, path string) ([]T, error) {
	var all []T
	query := url.Values{"limit": {"200"}}
	for {
		var page struct {
			Data []T
			Next *string
		}
		if err := a.get(ctx, path+"?"+query.Encode(), &page); err != nil {
			return nil, err
		}
		all = append(all, page.Data...)
		if page.Next == nil {
			return all, nil
		}
		query.Set("cursor", *page.Next)
	}
}

func (a *api) secret(ctx context.Context) (string, error) {
	var s struct{ Secret string }
	return s.Secret, a.get(ctx, "/v1/callbacks/secret", &s)
}
