package intake

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/callbatch/callbatch/batch"
)

// problems gathers what is wrong with a submission: the first
// [batch.MaxProblems] in input order, and the count of the others.
type problems struct {
	list      []batch.Problem
	more      int
	malformed bool
	word      string // the code all of them share; empty if they differ
}

func (ps *problems) any() bool { return len(ps.list) > 0 }

func (ps *problems) add(p batch.Problem) {
	ps.malformed = ps.malformed || isMalformed(p.Code)
	if !ps.any() {
		ps.word = p.Code
	} else if ps.word != p.Code {
		ps.word = ""
	}
	// Most come in order. Duplicate ids do not.
	at, _ := slices.BinarySearchFunc(ps.list, p, func(a, b batch.Problem) int {
		if c := cmp.Compare(a.Index, b.Index); c != 0 {
			return c
		}
		return -1 // behind its equals
	})
	if len(ps.list) == batch.MaxProblems {
		ps.more++
		if at == len(ps.list) {
			return
		}
		ps.list = ps.list[:len(ps.list)-1]
	}
	ps.list = slices.Insert(ps.list, at, p)
}

// has reports whether there is a problem at the place of p already.
func (ps *problems) has(p batch.Problem) bool {
	return slices.ContainsFunc(ps.list, func(q batch.Problem) bool { return q.Index == p.Index && q.Pointer == p.Pointer })
}

// err returns the refusal that names all problems.
func (ps *problems) err() error {
	e := &batch.Error{Code: batch.Invalid, Reason: ps.word, Message: sentence(ps.list[0]), Places: ps.list, More: ps.more}
	if ps.malformed {
		e.Code = batch.Malformed
	}
	if n := len(ps.list) + ps.more; n > 1 {
		e.Message = fmt.Sprintf("%d problems, the first: %s", n, e.Message)
	}
	return e
}

// isMalformed reports whether a problem is that the input is not what its
// content type says, rather than that it is not acceptable.
func isMalformed(code string) bool {
	switch code {
	case "invalid_json", "invalid_utf8", "duplicate_member", "lone_surrogate", "too_deep", "trailing_data", "repeated_option",
		"invalid_csv", "ragged_row", "nul":
		return true
	}
	return false
}

// refuse makes the error of the one problem that ends the reading.
func refuse(c batch.Code, p batch.Problem) error {
	return &batch.Error{Code: c, Reason: p.Code, Message: sentence(p), Places: []batch.Problem{p}}
}

// sentence says what is wrong and where.
func sentence(p batch.Problem) string {
	switch {
	case p.Line > 0:
		return fmt.Sprintf("line %d: %s", p.Line, p.Detail)
	case p.Index >= 0:
		return fmt.Sprintf("item %d: %s", p.Index, p.Detail)
	default:
		return p.Detail
	}
}

// clip bounds what a stranger sent before it goes into a message.
func clip(s string) string {
	const most = 200 // bytes
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "")
}
