package main_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestCrashRounds kills the server while batches go through their rounds, are
// canceled and deleted. What a round that is over left never changes, of one
// round there is one next, counts of successes never fall, and a deleted batch
// stays deleted.
//
// CALLBATCH_KILLS and CALLBATCH_SEED are as for TestCrash.
func TestCrashRounds(t *testing.T) {
	dir, err := os.MkdirTemp("", "callbatch-rounds-")
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(envNumber(t, "CALLBATCH_SEED", int(time.Now().UnixNano()>>10)))
	upstream := httptest.NewServer(http.HandlerFunc(stubborn))
	defer upstream.Close()
	l := &lives{ledger: newLedger(), seed: seed, over: map[string]bool{}}
	l.server = newVictim(t, build(t), dir, nil)
	l.server.configure(t, upstream.URL, "8080")
	l.api = newAPI(l.server)
	defer l.server.stop()
	kills := l.run(t.Context(), envNumber(t, "CALLBATCH_KILLS", 5))
	l.audit(t.Context())
	t.Logf("seed %d: %d kills, %d batches lived through %d rounds", seed, kills, len(l.over), l.rounds)
	for _, v := range l.ledger.violations() {
		t.Error(v)
	}
	if t.Failed() {
		t.Logf("store and log are kept in %s", dir)
		return
	}
	l.server.stop()
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}

// stubborn is an upstream that refuses two of three items in their first
// round, and one of three in their second.
func stubborn(w http.ResponseWriter, r *http.Request) {
	_, key, _ := strings.Cut(r.Header.Get("Idempotency-Key"), "/")
	index, round, _ := strings.Cut(key, "/r")
	i, _ := strconv.Atoi(index)
	n, _ := strconv.Atoi(round)
	time.Sleep(time.Millisecond)
	if max(1, n) <= i%3 {
		w.WriteHeader(http.StatusUnprocessableEntity)
		return
	}
	fmt.Fprintf(w, "[%d]", i)
}

// lives are batches from their submission to their end, over all kills.
type lives struct {
	ledger *ledger
	server *victim
	api    *api
	seed   uint64

	mu     sync.Mutex
	over   map[string]bool // deleted, by id
	rounds int
}

// run has batches live while the server is killed so many times.
func (l *lives) run(ctx context.Context, kills int) (n int) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if err := l.up(ctx); err != nil {
		l.ledger.violate("start: %v", err)
		return 0
	}
	var busy sync.WaitGroup
	enough := make(chan struct{})
	for i := range 4 {
		rnd := rand.New(rand.NewPCG(l.seed, uint64(i)))
		busy.Go(func() {
			for n := 0; !l.ledger.broken(); n++ {
				select {
				case <-enough:
					return
				default:
					l.live(ctx, rnd, fmt.Sprintf("%d-%d-%d", l.seed, i, n))
				}
			}
		})
	}
	rnd := rand.New(rand.NewPCG(l.seed, 99))
	for ; n < kills && !l.ledger.broken(); n++ {
		breathe(ctx, time.Duration(20+rnd.IntN(400))*time.Millisecond)
		l.server.kill()
		err := l.server.ended()
		if err == nil && n%5 == 4 {
			var out []byte
			if out, err = l.server.check(ctx); err != nil {
				err = fmt.Errorf("check: %w\n%s", err, out)
			}
		}
		if err == nil {
			err = l.up(ctx)
		}
		if err != nil {
			l.ledger.violate("after kill %d: %v", n+1, err)
			stop()
		}
	}
	close(enough)
	busy.Wait()
	return n
}

func (l *lives) up(ctx context.Context) error {
	if err := l.server.start(); err != nil {
		return err
	}
	return l.server.ready(ctx)
}

// ask asks until a complete answer arrives. Lost says that an earlier request
// may have had its effect.
func (l *lives) ask(ctx context.Context, method, path, body string, headers ...string) (a answer, lost bool) {
	for ctx.Err() == nil {
		contentType := ""
		if body != "" {
			contentType = "application/json"
		}
		a, err := l.api.do(ctx, method, path, contentType, strings.NewReader(body), headers...)
		if err == nil && a.status != http.StatusServiceUnavailable {
			return a, lost
		}
		lost = lost || err != nil
		breathe(ctx, 5*time.Millisecond)
	}
	return a, lost
}

// live takes one batch through its life.
func (l *lives) live(ctx context.Context, rnd *rand.Rand, token string) {
	items := []int{1, 30, 300, 900}[rnd.IntN(4)]
	list := strings.TrimSuffix(strings.Repeat("0,", items), ",")
	a, _ := l.ask(ctx, "POST", "/v1/batches", `{"processor":"twice","callback_mode":"pull","items":[`+list+`]}`, "Idempotency-Key", token)
	var b batchDoc
	if a.status != http.StatusAccepted || json.Unmarshal(a.body, &b) != nil {
		l.wrong(ctx, "submit: %d %s", a.status, a.body)
		return
	}
	path := "/v1/batches/" + b.ID
	var left [][sha256.Size]byte // by each round
	for round, succeeded := 1, 0; ctx.Err() == nil; round++ {
		if rnd.IntN(3) == 0 {
			breathe(ctx, time.Duration(rnd.IntN(60))*time.Millisecond)
			l.ask(ctx, "POST", path+"/cancel", "")
		}
		if b = l.ended(ctx, path, round, succeeded); ctx.Err() != nil || l.ledger.broken() {
			return
		}
		succeeded = b.Counts.Succeeded
		left = append(left, l.left(ctx, path, round, b))
		if succeeded == items {
			break
		}
		a, lost := l.ask(ctx, "POST", path+"/retry", fmt.Sprintf(`{"from_round":%d}`, round))
		if a.status != http.StatusAccepted && !(lost && a.is(http.StatusConflict, "wrong_round")) {
			l.wrong(ctx, "%s: retry of round %d (lost: %v): %d %s", b.ID, round, lost, a.status, a.body)
			return
		}
	}
	for n, was := range left {
		if is := l.left(ctx, path, n+1, b); is != was && ctx.Err() == nil {
			l.wrong(ctx, "%s: the results of round %d are not what they were", b.ID, n+1)
		}
	}
	a, lost := l.ask(ctx, "DELETE", path, "")
	if a.status != http.StatusNoContent && !(lost && a.is(http.StatusGone, "gone")) {
		l.wrong(ctx, "%s: delete (lost: %v): %d %s", b.ID, lost, a.status, a.body)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over[b.ID] = true
	l.rounds += len(left)
}

// wrong notes a violation, unless the test is over.
func (l *lives) wrong(ctx context.Context, format string, args ...any) {
	if ctx.Err() == nil {
		l.ledger.violate(format, args...)
	}
}

// ended waits for the end of a round.
func (l *lives) ended(ctx context.Context, path string, round, succeeded int) (b batchDoc) {
	for end := time.Now().Add(2 * time.Minute); ctx.Err() == nil; breathe(ctx, 5*time.Millisecond) {
		a, _ := l.ask(ctx, "GET", path, "")
		b = batchDoc{}
		if a.status != http.StatusOK || json.Unmarshal(a.body, &b) != nil || b.Round != round {
			l.wrong(ctx, "%s in round %d: %d %s", path, round, a.status, a.body)
			return b
		}
		if c := b.Counts; c.Succeeded < succeeded || c.Pending+c.Running+c.finished() != c.Total {
			l.wrong(ctx, "%s in round %d had %d successes: %s", path, round, succeeded, a.body)
			return b
		}
		if b.terminal() {
			return b
		}
		if time.Now().After(end) {
			l.wrong(ctx, "%s in round %d does not end: %s", path, round, a.body)
			return b
		}
	}
	return b
}

// left reads what a round left: a result of every item. Of the last one they
// are as many of each kind as the batch says.
func (l *lives) left(ctx context.Context, path string, round int, b batchDoc) [sha256.Size]byte {
	a, _ := l.ask(ctx, "GET", fmt.Sprintf("%s/results?round=%d", path, round), "")
	lines := strings.Split(strings.TrimSuffix(string(a.body), "\n"), "\n")
	if a.status != http.StatusOK || len(lines) != b.Counts.Total {
		l.wrong(ctx, "%s: round %d left %d results of %d: %d", path, round, len(lines), b.Counts.Total, a.status)
	}
	succeeded := strings.Count(string(a.body), `"status":"succeeded"`)
	if last := round == b.Round; last && succeeded != b.Counts.Succeeded || succeeded > b.Counts.Succeeded {
		l.wrong(ctx, "%s: round %d left %d successes, the batch in round %d says %+v", path, round, succeeded, b.Round, b.Counts)
	}
	return sha256.Sum256(a.body)
}

// audit looks for what was deleted, and at the store.
func (l *lives) audit(ctx context.Context) {
	if l.ledger.broken() {
		return
	}
	for id := range l.over {
		if a, _ := l.ask(ctx, "GET", "/v1/batches/"+id, ""); !a.is(http.StatusGone, "gone") {
			l.wrong(ctx, "%s was deleted: %d %s", id, a.status, a.body)
		}
	}
	for _, path := range []string{"/v1/batches", "/v1/messages"} {
		var list struct{ Data []struct{ ID string } }
		if err := l.api.get(ctx, path, &list); err != nil || len(list.Data) > 0 {
			l.wrong(ctx, "%s lists %d after all was deleted, %v", path, len(list.Data), err)
		}
	}
	l.server.stop()
	if out, err := l.server.check(ctx); err != nil {
		l.wrong(ctx, "check: %v\n%s", err, out)
	}
}
