package batch

import (
	"strconv"
	"strings"
)

// A Tolerance says how many items of a batch may fail before it stops: a
// count such as "10", or a share of all items such as "5%" or "0.25%". Empty
// means any number.
type Tolerance string

// Allows returns how many of so many items may fail. Of a part of an item none
// may.
func (t Tolerance) Allows(items int) int {
	if t == "" {
		return items
	}
	if hundredths, ok := t.share(); ok {
		return items * hundredths / 10_000
	}
	n, _ := strconv.Atoi(string(t)) // it is valid
	return n
}

func (t Tolerance) valid() bool {
	if t == "" {
		return true
	}
	if _, ok := t.share(); ok {
		return true
	}
	n, err := strconv.Atoi(string(t))
	return err == nil && n >= 0 && strconv.Itoa(n) == string(t)
}

// share returns the share in hundredths of a percent.
func (t Tolerance) share() (hundredths int, ok bool) {
	number, ok := strings.CutSuffix(string(t), "%")
	if !ok {
		return 0, false
	}
	whole, part, point := strings.Cut(number, ".")
	percent, err := strconv.ParseUint(whole, 10, 8)
	if err != nil || point && (part == "" || len(part) > 2) {
		return 0, false
	}
	rest, err := strconv.ParseUint((part + "00")[:2], 10, 8)
	hundredths = int(100*percent + rest)
	return hundredths, err == nil && hundredths <= 10_000
}
