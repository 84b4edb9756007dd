package engine

import "github.com/callbatch/callbatch/batch"

// slots counts messages in flight: all of them, those of them that were tried
// before, and those to hosts that are not proven.
type slots struct{ all, retries, trials int }

// slotsOf returns what one message takes.
func slotsOf(d *batch.Delivery) slots {
	s := slots{all: 1}
	if d.Retry() {
		s.retries = 1
	}
	if d.Trial {
		s.trials = 1
	}
	return s
}

func (s slots) plus(o slots) slots {
	return slots{s.all + o.all, s.retries + o.retries, s.trials + o.trials}
}

func (s slots) minus(o slots) slots {
	return slots{s.all - o.all, s.retries - o.retries, s.trials - o.trials}
}

// A budget shares the slots out. Retries have at most seven eighths of all, so
// that they never take the last from first attempts, and trials one half, so
// that they never take the last from hosts that are known to answer.
//
// Two take slots at the same time, before they know what they need: whoever
// records, for messages that are made meanwhile, and whoever claims what
// waits. Each takes at most half of what is free, so that neither keeps the
// other from work for as long as it asks the store; the last slot is for what
// waits, which is older.
type budget struct {
	most, used slots
	lacked     slots // 1 for each kind of which the last claim found none
}

func newBudget(all int) budget {
	return budget{most: slots{all: all, retries: max(1, all-(all+7)/8), trials: max(1, all/2)}}
}

// offer takes slots for at most n messages that are yet to be made, and so
// were never tried.
func (b *budget) offer(n int) (s slots) {
	free := b.most.minus(b.used)
	s.all = max(0, min(n, free.all/2))
	s.trials = max(0, min(s.all, free.trials/2))
	b.used = b.used.plus(s)
	return s
}

// claim takes slots for at most n messages that wait.
func (b *budget) claim(n int) (s slots) {
	free := b.most.minus(b.used)
	s.all = max(0, min(n, (free.all+1)/2))
	s.retries = max(0, min(s.all, (free.retries+1)/2))
	s.trials = max(0, min(s.all, (free.trials+1)/2))
	b.used = b.used.plus(s)
	b.lacked = slots{1 - min(s.all, 1), 1 - min(s.retries, 1), 1 - min(s.trials, 1)}
	return s
}

// free takes slots back. It reports whether the last claim found none of a
// kind that is there now.
func (b *budget) free(s slots) (wanted bool) {
	b.used = b.used.minus(s)
	return b.lacked.all*s.all+b.lacked.retries*s.retries+b.lacked.trials*s.trials > 0
}
