package server

import (
	"cmp"
	"context"
	"sync"
	"syscall"
	"time"

	"github.com/callbatch/callbatch/batch"
)

const (
	leastFree   = 1 << 30   // new work is refused below this, or below a share of the disk
	freeShare   = 20        // that share is one part in so many
	leastToWork = 256 << 20 // no item is started below this
	diskGlance  = time.Second
)

// A disk is what the store's file has left to grow. A full disk is known
// before it happens: everything but new work goes on.
type disk struct {
	dir     string
	minFree int64 // settable; 0: the default
	minWork int64 // likewise

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
	least := cmp.Or(d.minFree, max(leastFree, total/freeShare))
	if !ok || free >= least {
		return nil
	}
	return batch.Refuse(batch.Full, "disk_full", "the disk has %d MiB left and new work needs %d (limits.min_free): try again later", free>>20, least>>20)
}

// working reports whether there is room to record what is started.
func (d *disk) working() bool {
	free, _, ok := d.glance()
	return !ok || free >= cmp.Or(d.minWork, leastToWork)
}

// cautious is a store that takes no new work while the disk is full: uploads
// end, and no block is claimed. Everything else goes on.
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

func (c cautious) Stage(ctx context.Context, tenant batch.TenantID, id batch.ID) batch.Stage {
	return cautiousStage{c.Store.Stage(ctx, tenant, id), c.disk}
}

func (c cautious) StagePart(ctx context.Context, tenant batch.TenantID, id batch.ID, number int) batch.PartStage {
	return cautiousPart{c.Store.StagePart(ctx, tenant, id, number), c.disk}
}

type cautiousStage struct {
	batch.Stage
	disk *disk
}

func (s cautiousStage) Append(ctx context.Context, b batch.Block) error {
	if err := s.disk.accepting(); err != nil {
		return err
	}
	return s.Stage.Append(ctx, b)
}

type cautiousPart struct {
	batch.PartStage
	disk *disk
}

func (s cautiousPart) Append(ctx context.Context, b batch.Block) error {
	if err := s.disk.accepting(); err != nil {
		return err
	}
	return s.PartStage.Append(ctx, b)
}
