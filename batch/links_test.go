package batch

import (
	"encoding/base64"
	"net/url"
	"strings"
	"testing"
)

// linked is a batch of a server that knows how the world reaches it, and what
// signs its links.
func linked() (Spec, Links) {
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(i)
	}
	s := spec
	s.Tenant, s.BaseURL = TenantID{2}, "https://batch.example"
	return s, Links{Key: key}
}

func TestLinks(t *testing.T) {
	s, links := linked()
	const results = "/v1/batches/bat_01000000000000000000000000/results"
	const output = "/v1/batches/bat_01000000000000000000000000/items/1/output"
	// What was sent must open its path for as long as the batch is there: these
	// never change.
	const sentResults, sentOutput = "AgAAAAAAAAAAAAAAAAAAAFcYTEgwUdf4cHhmBwoaksU", "AgAAAAAAAAAAAAAAAAAAAKeA0NPqQpTyGOvyld05ryw"

	t.Run("are the same for ever", func(t *testing.T) {
		if got, want := links.ResultsURL(s), "https://batch.example"+results+"?link="+sentResults; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if got, want := links.OutputURL(s, 1), "https://batch.example"+output+"?link="+sentOutput; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
	for base, want := range map[string]string{
		"https://batch.example/":     "https://batch.example" + results,
		"https://batch.example/a/b":  "https://batch.example/a/b" + results,
		"https://batch.example/a/b/": "https://batch.example/a/b" + results,
		"http://[::1]:8080":          "http://[::1]:8080" + results,
	} {
		t.Run("begin with "+base, func(t *testing.T) {
			s := s
			s.BaseURL = base
			got := links.ResultsURL(s)
			if got != want+"?link="+sentResults {
				t.Errorf("got %s", got)
			}
			if u, err := url.Parse(got); err != nil || u.Query().Get(LinkParam) != sentResults {
				t.Errorf("%s is read as %v, %v", got, u, err)
			}
		})
	}
	t.Run("are none if the server does not know how the world reaches it, or has no key", func(t *testing.T) {
		nowhere := s
		nowhere.BaseURL = ""
		for _, got := range []string{links.ResultsURL(nowhere), links.OutputURL(nowhere, 1), Links{}.ResultsURL(s), Links{}.OutputURL(s, 1)} {
			if got != "" {
				t.Errorf("got %s", got)
			}
		}
		refused(t, Links{}, results, sentResults)
		refused(t, Links{}, results, Links{}.sign(s.Tenant, results)) // as anybody could
	})
	t.Run("open their path, and nothing else", func(t *testing.T) {
		if tenant, ok := links.Tenant(results, sentResults); !ok || tenant != s.Tenant {
			t.Fatalf("got %s, %v", tenant, ok)
		}
		if tenant, ok := links.Tenant(output, sentOutput); !ok || tenant != s.Tenant {
			t.Fatalf("got %s, %v", tenant, ok)
		}
		for _, path := range []string{
			"", "/", output, results + "/", results[1:], results[:len(results)-1], strings.ToUpper(results),
			"/v1/batches/bat_02000000000000000000000000/results", "/v1/batches/bat_01000000000000000000000000",
		} {
			refused(t, links, path, sentResults)
		}
		refused(t, links, strings.Replace(output, "/1/", "/11/", 1), sentOutput)
		refused(t, links, strings.Replace(output, "/1/", "/01/", 1), sentOutput)
	})
	t.Run("of another tenant or under another key are others", func(t *testing.T) {
		theirs := s
		theirs.Tenant = TenantID{3}
		other := links.ResultsURL(theirs)
		if other == links.ResultsURL(s) {
			t.Fatal("two tenants have one link")
		}
		if tenant, ok := links.Tenant(results, other[len(other)-43:]); !ok || tenant != theirs.Tenant {
			t.Errorf("theirs opens %s, %v", tenant, ok)
		}
		key := append([]byte(nil), links.Key...)
		key[31] ^= 1
		refused(t, Links{Key: key}, results, sentResults)
	})
	t.Run("with any bit changed open nothing", func(t *testing.T) {
		for i := range 8 * len(sentResults) {
			b := []byte(sentResults)
			b[i/8] ^= 1 << (i % 8)
			refused(t, links, results, string(b))
		}
		signed, err := base64.RawURLEncoding.DecodeString(sentResults)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 8 * len(signed) {
			b := append([]byte(nil), signed...)
			b[i/8] ^= 1 << (i % 8)
			refused(t, links, results, base64.RawURLEncoding.EncodeToString(b))
		}
	})
	t.Run("have one spelling", func(t *testing.T) {
		for _, link := range []string{
			"", sentResults[:42], sentResults + "A", sentResults + "=", " " + sentResults, sentResults + "\n", sentResults[:20] + "\r\n" + sentResults[20:],
			sentResults[:42] + "\n", strings.Repeat("\n", 43), strings.Repeat("A", 43), sentResults[:42] + "V", strings.Repeat("A", 1<<20),
		} {
			refused(t, links, results, link)
		}
	})
}

func refused(t *testing.T, l Links, path, link string) {
	t.Helper()
	if tenant, ok := l.Tenant(path, link); ok || tenant != (TenantID{}) {
		t.Errorf("%.80q opens %.80q, of %s", link, path, tenant)
	}
}
