package batch

import "time"

// DefaultRetention is how long a batch stays after its end, and
// TombstoneTime how long it is known afterwards that it was there.
const (
	DefaultRetention = 30 * 24 * time.Hour
	TombstoneTime    = 90 * 24 * time.Hour
)

// Delete says why the batch cannot be deleted now, if it cannot. Force gives up
// the messages that are owed.
func (p Progress) Delete(force bool) error {
	switch {
	case !p.Status.Terminal() && p.Status != Open:
		return Refuse(Conflict, "wrong_state", "the batch is %s: cancel it first, or wait for its end", p.Status)
	case p.Messages.Waiting > 0 && !force:
		return Refuse(Conflict, "messages_pending", "%d messages of the batch are not delivered yet: wait for them, or delete with force=true, which cancels them", p.Messages.Waiting)
	}
	return nil
}

// Outlived reports whether the batch has been kept for as long as it had to:
// so long after its end, and until none of its messages is owed.
func (p Progress) Outlived(keep time.Duration, now time.Time) bool {
	return p.Status.Terminal() && p.Messages.Waiting == 0 && !now.Before(p.Finished.Add(keep))
}

// Forgotten reports whether a batch deleted at a time is not known any more.
func Forgotten(deleted, now time.Time) bool { return !now.Before(deleted.Add(TombstoneTime)) }
