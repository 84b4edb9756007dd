package guard

import "fmt"

// Reason is why something was refused: a short word that does not change.
type Reason string

const (
	TooLong      Reason = "too_long"
	BadCharacter Reason = "bad_character"
	Malformed    Reason = "malformed"
	Scheme       Reason = "scheme"
	UserInfo     Reason = "user_info"
	Fragment     Reason = "fragment"
	Port         Reason = "port"
	Zone         Reason = "zone"
	NumericHost  Reason = "numeric_host" // 127.1, 0x7f000001, 2130706433 and the like
	BadName      Reason = "bad_name"
	LocalName    Reason = "local_name"
	Address      Reason = "address" // not globally routable
	Metadata     Reason = "metadata"
	OwnListener  Reason = "own_listener"
	Network      Reason = "network" // not TCP
)

const (
	settingHTTP  = "callbacks.allow_http"
	settingAllow = "callbacks.allow"
	settingPorts = "callbacks.ports"
)

// Refusal is the error of every check in this package. It is fit to be shown
// to the client.
type Refusal struct {
	Reason  Reason
	Setting string // the operator's setting that could permit it; "" if none can
	Detail  string
}

func (r *Refusal) Error() string {
	if r.Setting == "" {
		return r.Detail
	}
	return fmt.Sprintf("%s (the operator can permit it with %s)", r.Detail, r.Setting)
}

func refuse(reason Reason, setting, format string, args ...any) error {
	return &Refusal{Reason: reason, Setting: setting, Detail: fmt.Sprintf(format, args...)}
}
