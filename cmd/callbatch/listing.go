package main

import (
	"fmt"
	"iter"

	"github.com/spf13/pflag"
)

// A listing is how much of a list is wanted.
type listing struct {
	limit int
	all   bool
}

func (l *listing) register(f *pflag.FlagSet) {
	f.IntVar(&l.limit, "limit", 50, "show `N` at most")
	f.BoolVar(&l.all, "all", false, "show all there are")
}

func (l *listing) complete(f *pflag.FlagSet) error {
	switch {
	case l.limit < 1:
		return usagef("--limit is 1 or more")
	case l.all && f.Changed("limit"):
		return usagef("--all has no --limit")
	}
	return nil
}

// mostPage is how many entries of a list a server gives at a time.
const mostPage = 200

// atATime is how many to ask for at a time: the one too many tells that there are
// more.
func (l *listing) atATime() int {
	if l.all {
		return mostPage
	}
	return min(l.limit, mostPage-1) + 1
}

// write writes what is wanted of a list, a line each under a head, or as JSON;
// what is called so if there is none of it.
func write[T any](w *world, l listing, o output, entries iter.Seq2[T, error], what, head string, line func(T) string) error {
	n := 0
	for entry, err := range entries {
		if err != nil {
			return err
		}
		if n == l.limit && !l.all {
			fmt.Fprintln(w.stderr, "there are more: --limit N or --all shows them")
			return nil
		}
		if n++; n == 1 && o == outputText {
			fmt.Fprintln(w.stdout, head)
		}
		if o == outputJSON {
			err = writeDocument(w, entry)
		} else {
			_, err = fmt.Fprintln(w.stdout, printable(line(entry), 2*mostShown))
		}
		if err != nil {
			return err
		}
	}
	if n == 0 && o == outputText {
		fmt.Fprintf(w.stderr, "no %s\n", what)
	}
	return nil
}
