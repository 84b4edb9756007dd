package intake

import (
	"fmt"
	"os"
	"slices"
	"testing"
)

func TestIDSet(t *testing.T) {
	for _, n := range []int{1, 2, runEntries, runEntries + 1, 2*runEntries + 500} {
		t.Run(fmt.Sprintf("the first and the last of %d", n), func(t *testing.T) {
			dir := t.TempDir()
			s := newIDSet(dir, new(share))
			defer s.close()
			for i := range n {
				if err := s.add(fmt.Appendf(nil, "id-%d", i), i, i+1); err != nil {
					t.Fatal(err)
				}
			}
			for _, again := range []int{0, n - 1, 0} {
				if err := s.add(fmt.Appendf(nil, "id-%d", again), n+again, -1); err != nil {
					t.Fatal(err)
				}
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("a file has a name: %v", left)
			}
			var got []string
			var last idEntry
			seen := 0
			if err := s.each(func(first, again idEntry) {
				got = append(got, fmt.Sprint(first.index, first.line, again.index))
			}, func(e idEntry) error {
				if e.compare(last) < 0 {
					t.Fatalf("%v comes behind %v", e, last)
				}
				last = e
				seen++
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if seen != n+3 {
				t.Errorf("%d entries came, of %d", seen, n+3)
			}
			slices.Sort(got)
			want := []string{fmt.Sprint(0, 1, n), fmt.Sprint(0, 1, n), fmt.Sprint(n-1, n, 2*n-1)}
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}
