package callback

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Verdict is what an attempt means for its message.
type Verdict uint8

const (
	Retry       Verdict = iota // not delivered; again, when the Schedule says
	Delivered                  // acknowledged
	Gone                       // the receiver asked to stop: no further attempt
	Refused                    // the guard forbids the address
	Interrupted                // cut short by our own stop; does not count
)

func (v Verdict) String() string {
	switch v {
	case Retry:
		return "retry"
	case Delivered:
		return "delivered"
	case Gone:
		return "gone"
	case Refused:
		return "refused"
	case Interrupted:
		return "interrupted"
	}
	return "Verdict(" + strconv.Itoa(int(v)) + ")"
}

// maxRetryAfter bounds what is believed before the Schedule bounds it further.
const maxRetryAfter = 30 * 24 * time.Hour

// judge is the table of statuses: 2xx acknowledges, 410 and 413 stop, all else
// is tried again.
func judge(res *http.Response) (v Verdict, category, detail string) {
	switch status := res.StatusCode; {
	case status >= 200 && status <= 299:
		return Delivered, "", ""
	case status == http.StatusNotModified:
		return Retry, CategoryRedirect, statusText(status) + " is no acknowledgement; answer 2xx"
	case status >= 300 && status <= 399:
		return Retry, CategoryRedirect, statusText(status) + redirectTarget(res) + "; redirects are not followed, so set callback_url to the final address"
	case status == http.StatusGone:
		return Gone, CategoryStatus, statusText(status) + "; the receiver asked to stop: change callback_url if it has moved, then redeliver"
	case status == http.StatusRequestEntityTooLarge:
		return Gone, CategoryTooLarge, statusText(status) + "; the receiver refuses a body of this size: raise its limit and redeliver, or submit with a smaller callback_page_bytes or callback_mode summary"
	default:
		return Retry, CategoryStatus, statusText(status)
	}
}

// statusText names a status in our own words, not the receiver's.
func statusText(status int) string {
	return strings.TrimSpace(strconv.Itoa(status) + " " + http.StatusText(status))
}

// redirectTarget says which host a redirect points to, if that is another one
// and can be told. The rest of the address is not for details.
func redirectTarget(res *http.Response) string {
	//lint:ignore SA1008 not canonical on purpose, see oneTrip
	location := res.Header[hiddenLocation]
	if len(location) == 0 {
		return ""
	}
	u, err := url.Parse(location[0])
	if err != nil || u.Host == "" || len(u.Host) > 253+len(":65535") {
		return ""
	}
	return fmt.Sprintf(" to %q", u.Host)
}

// retryAfter reads Retry-After of a 429 or 503: seconds or any HTTP date, at
// most maxRetryAfter. What is malformed, negative or past counts as nothing.
func retryAfter(res *http.Response, now time.Time) time.Duration {
	if res.StatusCode != http.StatusTooManyRequests && res.StatusCode != http.StatusServiceUnavailable {
		return 0
	}
	text := strings.TrimSpace(res.Header.Get("Retry-After"))
	if text == "" {
		return 0
	}
	if strings.Trim(text, "0123456789") == "" {
		seconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil || seconds > int64(maxRetryAfter/time.Second) {
			return maxRetryAfter // err: too large for an int64
		}
		return time.Duration(seconds) * time.Second
	}
	date, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return min(max(date.Sub(now), 0), maxRetryAfter)
}
