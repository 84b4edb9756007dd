package bolt_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/callbatch/callbatch/storage/bolt"
)

// TestPowerLoss builds the states that a power loss in the middle of a commit
// can leave on a truthful disk, and opens each: the store is sound and shows
// exactly what it showed before the commit or after it.
//
// CALLBATCH_STATES says how many states (200 unless set), CALLBATCH_SEED
// which to repeat.
func TestPowerLoss(t *testing.T) {
	if os.Getenv(judging) != "" {
		serveJudge()
	}
	b := newBench(t)
	b.run(envNumber(t, "CALLBATCH_STATES", 200), 6)
	for _, v := range b.wrong {
		t.Error(v)
	}
	t.Logf("seed %d: %d states of %d commits", b.seed, b.judged, b.commits)
}

// TestPowerLossCatches shows that the judge would notice: on a disk that lies
// about its flush, states come up that are neither before nor after.
func TestPowerLossCatches(t *testing.T) {
	b := newBench(t)
	b.lying = true
	b.run(60, 3)
	if len(b.wrong) == 0 {
		t.Errorf("seed %d: %d states without a page that was synced, and nothing noticed", b.seed, b.judged)
	}
	t.Logf("seed %d: %d of %d lies caught", b.seed, len(b.wrong), b.judged)
}

// bench makes crash states of a store at work and has them judged.
type bench struct {
	t       *testing.T
	seed    uint64
	rnd     *rand.Rand // the committer's
	path    string     // of the store at work
	state   string     // of the crash state that is judged
	store   *bolt.Store
	judge   *judge
	commits int

	mu     sync.Mutex // the store commits on its own, too
	shown  string     // what is on disk, as the store shows it
	judged int
	wrong  []string

	most, each int
	lying      bool // the disk lies: what is wrong is what is wanted
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, seed: uint64(envNumber(t, "CALLBATCH_SEED", int(time.Now().UnixNano()>>10)))}
	b.rnd = rand.New(rand.NewPCG(b.seed, 0))
	b.path, b.state = filepath.Join(t.TempDir(), "store.db"), filepath.Join(t.TempDir(), "state.db")
	var err error
	if b.judge, err = newJudge(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.judge.close() })
	return b
}

// run works on a store until so many states were judged, at most each of one
// commit. A store that has grown is left for a fresh one.
func (b *bench) run(most, each int) {
	b.most, b.each = most, each
	for !b.done() {
		if err := os.RemoveAll(b.path); err != nil {
			b.t.Fatal(err)
		}
		b.work()
	}
}

func (b *bench) done() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.judged >= b.most || len(b.wrong) > 0 && !b.lying
}

const stepsAStore = 60

func (b *bench) work() {
	ctx := context.Background()
	s, err := bolt.Open(b.path, small)
	if err != nil {
		b.t.Fatal(err)
	}
	defer s.Close()
	b.store, b.shown = s, ""
	s.Around(b.around)
	w := &worker{store: s, rnd: rand.New(rand.NewPCG(b.seed, uint64(b.commits+1)))}
	if err := w.start(ctx); err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i < stepsAStore && !b.done(); i++ {
		if err := w.step(ctx); err != nil {
			b.t.Fatalf("seed %d: %v", b.seed, err)
		}
		if err := b.compare(ctx); err != nil {
			b.t.Fatalf("seed %d: %v", b.seed, err)
		}
	}
}

// around has the states of one commit judged, within the commit: nothing else
// happens meanwhile.
func (b *bench) around(commit func() error) error {
	was, err := readImage(b.path)
	if err != nil {
		return err
	}
	if err := commit(); err != nil {
		return err
	}
	is, err := readImage(b.path)
	if err != nil {
		return err
	}
	c, err := diff(was, is)
	if err != nil {
		return err
	}
	before := b.shown
	whole, err := b.open(is)
	if err != nil {
		return err
	}
	b.learn(whole)
	b.commits++
	states := c.crashes
	if b.lying {
		states = c.lies
	}
	for _, state := range states(b.rnd, b.each) {
		if b.done() {
			break
		}
		if err := b.try(state, before); err != nil {
			return err
		}
	}
	return nil
}

// open has a judge look at an image.
func (b *bench) open(im image) (verdict, error) {
	if err := im.write(b.state); err != nil {
		return verdict{}, err
	}
	v, died := b.judge.look(b.state)
	if died == nil {
		return v, nil
	}
	b.judge.close()
	v.Err = fmt.Sprintf("%v: %.2000s", died, b.judge.words.Bytes())
	var err error
	b.judge, err = newJudge()
	return v, err
}

// learn takes what is shown after a commit without a crash.
func (b *bench) learn(v verdict) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.shown = v.View; v.Err != "" {
		b.wrong = append(b.wrong, fmt.Sprintf("seed %d, without a crash: %s", b.seed, v.Err))
	}
}

// compare holds what the store shows, now that a call has returned, against
// what is in the file.
func (b *bench) compare(ctx context.Context) error {
	live, err := view(ctx, b.store, tenants)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if live != b.shown {
		b.wrong = append(b.wrong, fmt.Sprintf("seed %d: it shows what is not on disk (-disk +shown):\n%s", b.seed, cmp.Diff(b.shown, live)))
	}
	return nil
}

// try judges one state, and notes what is wrong with it.
func (b *bench) try(state crash, was string) error {
	v, err := b.open(state.image)
	if err != nil {
		return err
	}
	problem := state.judge(v, was, b.shown)
	if problem != "" {
		problem = b.describe(state, problem)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.judged++; problem != "" {
		b.wrong = append(b.wrong, problem)
	}
	return nil
}

// judge says what is wrong with what was found in a state.
func (c crash) judge(v verdict, was, is string) string {
	switch {
	case v.Err != "":
		return v.Err
	case v.View == was, v.View == is && c.want == either:
		return ""
	default:
		return "it does not show what was there " + string(c.want) + " (-want +got):\n" + cmp.Diff(was, v.View)
	}
}

// describe keeps a state that should not be, so that it can be followed up.
func (b *bench) describe(state crash, problem string) string {
	kept := filepath.Join(os.TempDir(), fmt.Sprintf("callbatch-powerloss-%d.db", b.seed))
	if !b.lying {
		if err := state.write(kept); err != nil {
			kept = err.Error()
		}
	}
	return fmt.Sprintf("seed %d, %s, kept in %s: %s", b.seed, state.kind, kept, problem)
}

func envNumber(t *testing.T, name string, unset int) int {
	t.Helper()
	text, ok := os.LookupEnv(name)
	if !ok {
		return unset
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
