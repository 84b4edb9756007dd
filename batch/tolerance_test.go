package batch

import "testing"

func TestTolerance(t *testing.T) {
	for _, c := range []struct {
		t      Tolerance
		items  int
		allows int
	}{
		{"", 7, 7},
		{"0", 7, 0},
		{"3", 7, 3},
		{"100", 7, 100},
		{"0%", 1000, 0},
		{"5%", 1000, 50},
		{"5%", 19, 0}, // of a part of an item none
		{"5%", 20, 1},
		{"0.25%", 10_000_000, 25_000},
		{"2.3%", 1000, 23},
		{"33.33%", 3, 0},
		{"100%", 3, 3},
		{"100.00%", 10_000_000, 10_000_000},
	} {
		if !c.t.valid() || c.t.Allows(c.items) != c.allows {
			t.Errorf("%q of %d allows %d, valid %v, want %d", c.t, c.items, c.t.Allows(c.items), c.t.valid(), c.allows)
		}
	}
	for _, s := range []Tolerance{"-1", "+1", "01", "1.5", "1e3", " 1", "x", "%", "-5%", "+5%", "101%", "100.01%", "5.%", ".5%", "0.125%", "5 %", "5%%", "1.+5%", "99999999999999999999", "999%"} {
		if s.valid() {
			t.Errorf("%q is taken", s)
		}
	}
}
