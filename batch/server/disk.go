package server

import (
	"context"
	"sync"
	"syscall"
	"time"

	"github.com/callbatch/callbatch/batch"
)

const (
	leastFree   = 1 << 30   // new work is refused below this, or below a share of the disk
	freeShare   = 20        // that share is one part in so many
	leastToWork = 256 << 20 // nothing new is started below this
	diskGlance  = time.Second
)

// A disk is what the store's file has left to grow. A full disk is known
// before it happens: everything but new work goes on.
type disk struct {
	dir   string
	least int64 // settable; 0: the default

	mu          sync.Mutex
	at          time.Time
	free, total int64
}

// glance returns the free and the total bytes as of the last second.
func (d *disk) glance() (free, total int64, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.at) > diskGlance {
		var st syscall.Statfs_t
		if syscall.Statfs(d.dir, &st) != nil {
			return 0, 0, false
		}
		d.at, d.free, d.total = time.Now(), int64(st.Bavail)*int64(st.Bsize), int64(st.Blocks)*int64(st.Bsize)
	}
	return d.free, d.total, true
}

// accepting says why no work is taken in, if the disk is why.
func (d *disk) accepting() error {
	free, total, ok := d.glance()
	least := d.least
	if least == 0 {
		least = max(leastFree, total/freeShare)
	}
	if !ok || free >= least {
		return nil
	}
	return batch.Refuse(batch.Full, "disk_full", "the disk has %d MiB left and new work needs %d (limits.min_free): try again later", free>>20, least>>20)
}

// working reports whether there is room to record what is started.
func (d *disk) working() bool {
	free, _, ok := d.glance()
	least := int64(leastToWork)
	if d.least > 0 {
		least = min(least, d.least)
	}
	return !ok || free >= least
}

// cautious is a store whose blocks are not claimed while the disk is full.
type cautious struct {
	batch.Store
	disk *disk
}

func (c cautious) Claim(ctx context.Context, q batch.Claim) ([]batch.Work, error) {
	if !c.disk.working() {
		return nil, nil
	}
	return c.Store.Claim(ctx, q)
}
