package callback_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/callbatch/callbatch/callback"
)

func TestCheckHeaders(t *testing.T) {
	if err := callback.CheckHeaders(nil); err != nil {
		t.Error(err)
	}
	sixteen := map[string]string{"Authorization": "Bearer x", "Cookie": "a=b", "X_Shop": "shop", "X-Empty": "", "X-Long": strings.Repeat("v", 4096)}
	for i := len(sixteen); i < 16; i++ {
		sixteen["X-"+strconv.Itoa(i)] = "ż"
	}
	if err := callback.CheckHeaders(sixteen); err != nil {
		t.Error(err)
	}
	sixteen["X-One-More"] = "v"
	if err := callback.CheckHeaders(sixteen); err == nil || !strings.Contains(err.Error(), "at most 16") {
		t.Errorf("17 headers: %v", err)
	}

	for _, name := range []string{
		"Host", "host", "Content-Length", "content-type", "CONTENT-DIGEST", "Content-Encoding", "Transfer-Encoding", "Connection", "Idempotency-Key", "X-Idempotency-Key",
		"webhook-id", "Webhook-Signature", "webhook-anything", "callbatch-attempt", "Callbatch-X", "Proxy-Authorization", "Keep-Alive", "TE", "Trailer", "Upgrade", "Expect", "HTTP2-Settings",
		"User-Agent", "user_agent", "Webhook_Id", "WEBHOOK_SIGNATURE", "Content_Type", "Callbatch_Attempt", "X_Idempotency_Key", "X-Idempotency_Key", "Transfer_Encoding",
		"", " ", "a b", "a:b", "a\r\nb", "ż", strings.Repeat("x", 129),
	} {
		if err := callback.CheckHeaders(map[string]string{name: "s3cret"}); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("name %.20q: %v", name, err)
		}
	}
	for _, value := range []string{"s3cret\r\nx: y", "s3cret\n", "s3cret\x00", "s3cret\t", "s3cret\x7f", "s3cret" + strings.Repeat("v", 64<<10)} {
		if err := callback.CheckHeaders(map[string]string{"X-A": value}); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("value %.20q: %v", value, err)
		}
	}
	for _, again := range []string{"x-a", "X_A", "x_a"} {
		if err := callback.CheckHeaders(map[string]string{"X-A": "1", again: "2"}); err == nil {
			t.Errorf("X-A passes beside %s", again)
		}
	}
}
