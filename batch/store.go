package batch

import (
	"context"
	"time"
)

// A Store keeps everything that is promised. It is a single file or a
// database that several nodes share; both keep these sentences:
//
//   - Every method that changes something is one durable transaction, named
//     after what happened. When it returns nil the change survives power
//     loss; when it returns an [Error] nothing has changed. Any other error
//     leaves the outcome unknown.
//   - Whatever the store decides it asks of this package's pure functions.
//   - Reads see only what is durable and never wait for a writer.
//   - Bytes that are returned are the caller's own.
//
// A store that cannot know its own state any more (a failed sync) closes
// Failed and refuses everything: its process must end and start anew.
type Store interface {
	Intake
	Reader
	Queue
	Outbox
	Vault
	Keeper
}

// Intake is what it takes to accept work and to steer it.
type Intake interface {
	// Stage opens a place for the blocks of a batch that does not exist yet.
	Stage(ctx context.Context, tenant TenantID, id ID) Stage

	// OpenBatch makes a batch exist that is sent in parts. The spec's ID and
	// Tenant are the caller's to fill in.
	OpenBatch(ctx context.Context, s Spec, once Once) (Batch, error)

	// StagePart opens a place for a part of an open batch. Several may be open
	// for the same part: the first to be kept is the part.
	StagePart(ctx context.Context, tenant TenantID, id ID, number int) PartStage

	// DropPart takes a part out of an open batch. There may be none.
	DropPart(ctx context.Context, tenant TenantID, id ID, number int) error

	// Seal ends the sending of parts: the batch is queued, its items in the
	// order of its parts. A batch that is not open is a Conflict with reason
	// wrong_state, parts that are no whole batch are refused as [CheckParts]
	// does, ids that repeat in other parts are Invalid, with part and line, and
	// a batch that changed meanwhile is a Conflict with reason parts_changed.
	Seal(ctx context.Context, r Sealing, once Once) (Batch, error)

	// Reserve begins a request that bears an Idempotency-Key. Bound is what came
	// of an earlier one with the key; nil: this is the first, and until release
	// is called all others are refused as [InProgress]. The reservation is its
	// holder's alone and ends with it.
	Reserve(ctx context.Context, tenant TenantID, key string) (bound *Binding, release func(), err error)

	// Cancel begins the end of a batch and returns the batch as it is now.
	// It is idempotent. A batch that has ended otherwise is a Conflict with
	// reason wrong_state; an unknown or foreign one is NotFound. So it is with
	// Pause, after which nothing more is claimed, and Resume.
	Cancel(ctx context.Context, tenant TenantID, id ID) (Batch, error)
	Pause(ctx context.Context, tenant TenantID, id ID) (Batch, error)
	Resume(ctx context.Context, tenant TenantID, id ID) (Batch, error)

	// Amend changes a batch as [Progress.Amend] says and returns it as it is
	// now. Messages that wait for the host of another URL move to the new
	// one's lane, whatever crashes.
	Amend(ctx context.Context, tenant TenantID, id ID, a Amendment) (Batch, error)

	// Retry opens the next round of a batch that has ended, for what it names
	// ([Progress.Retry]), and returns the batch as it is now. It is one step
	// however many items there are; what a round has to do is laid out after
	// it, so that Claim finds blocks of it little by little. Of several calls
	// for one round one wins; the others are a Conflict with reason
	// wrong_round. A name of no item, or of one that has succeeded, is Invalid.
	Retry(ctx context.Context, tenant TenantID, id ID, r Retry, once Once) (Batch, error)

	// Delete takes a batch away ([Progress.Delete]): from then on whatever asks
	// for it is refused with Gone, and after [TombstoneTime] with NotFound; its
	// messages are in no list and are not sent. What it occupied is freed
	// little by little. Batches that were kept long enough go in the same way
	// by themselves ([Progress.Outlived]).
	Delete(ctx context.Context, tenant TenantID, id ID, force bool) error
}

// A Sink receives items. It is used by one goroutine.
type Sink interface {
	// Append adds the next block. It may return before the block is durable
	// and blocks while too much is under way; the first failure comes back
	// from here or from the last step. The block is the sink's from now on.
	Append(ctx context.Context, b Block) error

	// Index adds the next entries of the index of the items' ids, at most
	// [IndexEntries], all in the order of their hashes. It is called where each
	// item has an id of its own. The entries are the caller's again afterwards.
	Index(ctx context.Context, entries []IndexEntry) error
}

// A Stage receives a batch. What was appended is invisible until Create and
// removed by Discard; a crash removes it at the next start.
type Stage interface {
	Sink

	// Create makes the batch exist, queued, with every block appended. The
	// spec's ID, Tenant, Items, Blocks, Bytes and Accepted are filled in by the
	// stage.
	Create(ctx context.Context, s Spec, once Once) (Batch, error)

	// Discard drops what was appended. After Create it does nothing.
	Discard()
}

// A PartStage receives a part as a Stage receives a batch.
type PartStage interface {
	Sink

	// There returns the part that was there already when the place was opened,
	// nil if there was none: what has the same content need not be appended.
	There() *Part

	// Keep makes what was appended part of the batch and returns it; Number,
	// Key, Items, Blocks, Size and Sent are filled in by the stage. If the part
	// is there already with the same content that one is returned, with other
	// content it is a Conflict with reason part_mismatch.
	Keep(ctx context.Context, p Part, room Room) (Part, error)

	// Discard drops what was appended. After Keep it does nothing.
	Discard()
}

// A Sealing asks for a batch to be sealed.
type Sealing struct {
	Tenant TenantID
	Batch  ID
	Parts  int // that there are to be; -1: as many as there are
}

// Reader is what status needs. It answers while writers are busy or gone.
// Every call is bounded in time and in bytes; what is longer is paged.
type Reader interface {
	// Batch returns a batch of the tenant, else NotFound; one that was deleted
	// is Gone, as for every call below.
	Batch(ctx context.Context, tenant TenantID, id ID) (Batch, error)

	// Batches lists the tenant's batches, newest first. A page may be empty and
	// not the last.
	Batches(ctx context.Context, q BatchQuery) (list []Batch, next *ID, err error)

	// Active lists the tenant's batches that have not ended, in a stable order,
	// beginning after one; the zero id is before all.
	Active(ctx context.Context, tenant TenantID, after ID, limit int) (list []Batch, next *ID, err error)

	// Ended lists the tenant's batches whose last round is over, in the order in
	// which they ended, beginning after a place. A page may be empty and not the
	// last.
	Ended(ctx context.Context, tenant TenantID, after EndedAt, limit int) (list []Batch, next *EndedAt, err error)

	// Watch hints at changes of a batch, or of all of the tenant's if id is nil,
	// once they are durable. What only memory knows, like what is in flight, it
	// hints at as well.
	Watch(tenant TenantID, id *ID) *Watch

	// Results returns a page of the batch's results in input order. A page
	// may be empty and not the last. A round there is not is NotFound.
	Results(ctx context.Context, tenant TenantID, id ID, q ResultQuery) (ResultPage, error)

	// Item returns one item with its result, if it has one. An index outside
	// the batch is NotFound.
	Item(ctx context.Context, tenant TenantID, id ID, index int) (ItemView, error)

	// FindItem returns the item with an id as it stands: the client's own where
	// the batch has an id_field, else the index as text.
	FindItem(ctx context.Context, tenant TenantID, id ID, item string) (ItemView, error)

	// Parts returns the parts of a batch that there are, by number: of one that
	// was sent as a whole none.
	Parts(ctx context.Context, tenant TenantID, id ID) ([]Part, error)

	// Messages lists messages, newest first. A page may be empty and not the
	// last.
	Messages(ctx context.Context, q MessageQuery) (list []Message, next *MessageID, err error)

	// Message returns a message of the tenant with its attempts, in order.
	Message(ctx context.Context, tenant TenantID, id MessageID) (Message, []Attempt, error)

	// Body returns the body of a message: the same bytes whenever it is asked.
	Body(ctx context.Context, m Message) ([]byte, error)

	// Feed returns messages with their bodies in the order in which they were
	// made durable: never one while an older one may still appear.
	Feed(ctx context.Context, q FeedQuery) (FeedPage, error)

	// Posted returns a channel that is closed when a message has been made
	// after the call, or hints so sooner.
	Posted() <-chan struct{}

	// Hosts returns how the receivers' hosts of a tenant stand that failed last
	// or were not proven again since, by name; at most 1,000.
	Hosts(ctx context.Context, tenant TenantID) ([]Health, error)
}

// A BatchQuery selects batches of one tenant.
type BatchQuery struct {
	Tenant    TenantID
	Status    Status            // 0: any
	Processor string            // empty: any
	Metadata  map[string]string // pairs that a batch has, all of them
	Before    *ID               // only those listed after this one; nil: from the newest
	Since     ID                // none that is less; zero: to the oldest
	Limit     int               // at most; 1 and up
}

// Wants reports whether a batch of the tenant is among those selected,
// wherever it is listed.
func (q BatchQuery) Wants(b Batch) bool {
	if q.Status != 0 && q.Status != b.Status || q.Processor != "" && q.Processor != b.Options.Processor {
		return false
	}
	for k, v := range q.Metadata {
		if has, ok := b.Options.Metadata[k]; !ok || has != v {
			return false
		}
	}
	return true
}

// EndedAt is a place among the batches that have ended. With the zero id it is
// before all that ended at the time, by the millisecond.
type EndedAt struct {
	Time time.Time
	ID   ID
}

// A ResultQuery selects results of one batch.
type ResultQuery struct {
	From   int        // first index wanted
	Limit  int        // most results in the page; 1 and up
	Bytes  int        // stop after this many payload bytes; default 1 MiB
	Status ItemStatus // 0: any
	Prefix bool       // stop before the first unfinished item
	Round  int        // results as this round left them; 0: the current one
}

// A ResultPage is a run of results. Next is where the following page begins.
type ResultPage struct {
	Results []Result
	Next    int
	Last    bool // nothing follows now: the input's end, or an unfinished item with Prefix
	Batch   Batch
}

// An ItemView is one item as it stands.
type ItemView struct {
	Index    int
	ID       string // the client's own; empty means the index as text
	Status   ItemStatus
	Attempts int
	Input    []byte
	Result   *Result
}

// A MessageQuery selects messages of one tenant.
type MessageQuery struct {
	Tenant TenantID
	Batch  *ID          // nil: of all batches
	State  MessageState // 0: any
	Host   string       // empty: any
	Before *MessageID   // only those listed after this one
	Limit  int          // at most; 1 and up
}

// A FeedQuery selects messages of one tenant, oldest first.
type FeedQuery struct {
	Tenant TenantID
	After  MessageID // begin after this one; zero: at the oldest
	Limit  int       // most messages; 1 and up
	Bytes  int       // stop after this many bytes of bodies; default 1 MiB
}

// A FeedPage is a run of messages. Next is where the following page begins:
// after the last, or after After if there is none. A page whose messages are
// damaged has none and moves on.
type FeedPage struct {
	Entries []FeedEntry
	Next    MessageID
}

// A FeedEntry is a message with its body.
type FeedEntry struct {
	Message
	Body []byte
}

// Queue is how blocks of items reach the workers and their outcomes the disk.
// Owner names a node; a [Lease] with its token is what makes a write
// acceptable: a report whose lease was lost changes nothing.
type Queue interface {
	// Claim leases due blocks, rotating over tenants and over their batches,
	// so that no batch is passed by for ever. It returns at once, with
	// nothing if nothing is due.
	Claim(ctx context.Context, c Claim) ([]Work, error)

	// Record keeps what became of claimed items: as many of the reports as are
	// not too much for one transaction, at least the first, each on its own
	// conditions. Left says how many of the last ones it did not get to. Where a report finishes a
	// range its message is made in the same transaction, where it finishes
	// the batch the batch ends and the terminal message is made.
	// Lost names the reports, by position, whose lease was another's: nothing
	// of these was kept. Up to offer.Max of the messages that are due at once
	// come back already claimed.
	Record(ctx context.Context, reports []Report, offer MessageClaim) (Recorded, error)

	// Renew keeps the leases of what its caller holds for another lease time,
	// tells the store what is in flight, and answers with what to stop.
	Renew(ctx context.Context, owner string, held []Holding) (Renewed, error)

	// NextDue returns when a block of one of the processors that nobody holds
	// is next due: the zero time if one may be due now. ok is false if there is
	// none. It may name a time too early, never one too late.
	NextDue(ctx context.Context, processors []string) (at time.Time, ok bool, err error)

	// Changed hints that Claim may find more than it did. It never carries:
	// a hint may be lost, and its receiver asks the store.
	Changed() <-chan struct{}
}

// LeaseTime is how long a lease lives without Renew on a store that several
// nodes share. Holders renew every third of it, or sooner.
const LeaseTime = 30 * time.Second

// A Claim asks for blocks.
type Claim struct {
	Owner      string
	Processors []string // names this node serves; other batches are left alone
	Blocks     int      // most to return
	PerBatch   int      // most of one batch in this owner's hands, those it holds included
}

// A Lease is the right to report on a block. It ends with a report that
// releases it, or with its time.
type Lease struct {
	Block BlockKey
	Owner string
	Token uint64
	Due   time.Time // under which the block was found; the store's own
}

// Work is a claimed block: the items of it that may be tried now.
type Work struct {
	Lease Lease
	Spec  *Spec // shared and not to be changed; another when its owner amends it
	Round int
	Items []WorkItem

	Expires time.Time // from when on nothing of it is to be started; zero: never
	Failed  int       // items of the batch, in the round and as recorded by then: see [Spec.Bears]
}

// A WorkItem is an item to be worked on.
type WorkItem struct {
	Index    int
	ID       string // the client's own; empty means the index as text
	Raw      []byte
	Attempts int // counted so far
	Deaths   int // of workers at it, or of the process
}

// A Report says what became of claimed items. A claim may be reported on
// several times; the last time releases it.
type Report struct {
	Lease   Lease
	Started time.Time // when the claim's first item was started; zero: none was. A batch that was shown as running keeps its start
	Results []Result  // Round is the store's to fill in
	Again   []Again
	Release bool // the holder lets go; items it says nothing of are as they were
}

// Recorded is what a Record did.
type Recorded struct {
	Lost       []int // positions of reports that changed nothing
	Left       int   // how many of the last reports are to be given again
	Ended      []Batch
	Deliveries []Delivery
}

// A Holding is what a node has in its hands of one batch.
type Holding struct {
	Tenant    TenantID
	Batch     ID
	Leases    []Lease
	Edition   int    // of its spec
	InFlight  int    // items being worked on
	WaitingOn string // why nothing is, if nothing is
}

// Renewed answers a Renew.
type Renewed struct {
	Lost    []Lease   // another's by now: drop the work
	Stop    []ID      // start nothing more of these batches and release their blocks
	Amended []Amended // of another edition than what is held
}

// Amended is what holds for a batch since its owner changed it.
type Amended struct {
	Spec    *Spec     // shared and not to be changed
	Expires time.Time // as in Work
}

// Outbox is how messages reach their receivers. What keeps one dead or slow
// receiver from slowing others is its business: turns over tenants and hosts,
// and a bound and a breaker for each ([Health]).
type Outbox interface {
	// ClaimMessages takes due messages for sending, rotating over the lanes
	// (tenant and host) whose health allows it. The attempt is recorded as
	// begun before this returns. A message whose time is spent is exhausted
	// instead, also while its host's breaker is open.
	ClaimMessages(ctx context.Context, c MessageClaim) ([]Delivery, error)

	// Attempted records how attempts ended and what that says about their
	// hosts, each on its own conditions, in one transaction. One whose message
	// is not in that attempt any more changes nothing.
	Attempted(ctx context.Context, outcomes []AttemptOutcome) error

	// NextMessage returns when ClaimMessages may next find something; ok is
	// false if nothing waits. What the last claim had no budget for is left out.
	NextMessage(ctx context.Context) (at time.Time, ok bool, err error)

	// Backlog returns how much is owed, at a glance and without an error.
	Backlog() Backlog

	// MessagesChanged hints that ClaimMessages may find more than it did.
	MessagesChanged() <-chan struct{}

	// Redeliver has a message sent once more, whatever its state: see
	// [Message.Redeliver]. A message whose batch has no callback URL is a
	// Conflict with reason no_callback_url.
	Redeliver(ctx context.Context, tenant TenantID, id MessageID, once Once) (Message, error)

	// RedeliverAll keeps the order to send many messages again, to be carried
	// out whatever crashes, and returns how many can be sent. A state that is
	// not settled is Invalid.
	RedeliverAll(ctx context.Context, r Redelivery, once Once) (wanted int, err error)
}

// A Backlog is how much is owed to receivers.
type Backlog struct {
	Waiting   int // messages, parked ones included
	Sending   int // messages
	HostsOpen int // hosts, each counted for every tenant, whose breakers are open
}

// A MessageClaim asks for messages.
type MessageClaim struct {
	Owner   string
	Max     int // most to return; 0: none
	Retries int // most of these that were tried before, those asked for by their owners included
	Trials  int // most of these to hosts that are not proven
	PerHost int // most in flight to one lane, those under way included
}

// A Delivery is a message claimed for its attempt number Made.
type Delivery struct {
	Message
	Body    []byte            // if it was at hand; else nil
	URL     string            // as it is now
	Headers map[string]string // extra ones, as they are now
	Token   uint64
	Trial   bool // its host is not proven
}

// Retry reports whether the message was tried before.
func (d Delivery) Retry() bool { return d.Made > 1 }

// An AttemptOutcome is how one attempt ended and what follows. The state is
// waiting (again at Due), delivered, exhausted, canceled or blocked.
type AttemptOutcome struct {
	Delivery Delivery
	Attempt  Attempt
	State    MessageState
	Reason   string
	Due      time.Time
	Host     HostState // what it says about its host; a Manual attempt's word is not heard
	Refund   bool      // the attempt never was: our own stop cut it short, or there was nothing to send
}

// Vault keeps who may ask and what signs.
type Vault interface {
	// Keys returns all keys. There are few; callers cache them.
	Keys(ctx context.Context) ([]Key, error)

	// AddKey keeps a new key. onlyFirst makes it refuse with Conflict if
	// there is any key already.
	AddKey(ctx context.Context, k Key, onlyFirst bool) error

	// Secrets returns the signing secrets of a tenant, newest first. If there
	// is none, fresh is kept as the first and returned.
	Secrets(ctx context.Context, tenant TenantID, fresh Secret) ([]Secret, error)

	// Rotate makes fresh the tenant's current secret and lets those before it
	// sign beside it for keep, and no longer: 0 ends them all. It returns all
	// that sign, newest first. More than [MaxSecrets] at once are a Conflict with
	// reason too_many_secrets.
	Rotate(ctx context.Context, tenant TenantID, fresh Secret, keep time.Duration) ([]Secret, error)

	// LinkKey returns the key that signs links, made with the store.
	LinkKey(ctx context.Context) ([]byte, error)
}

// MaxSecrets is how many secrets of a tenant may sign at once: each attempt
// bears a signature by every one.
const MaxSecrets = 10

// A Key is an API key as it is kept: its secret is known by its hash only.
type Key struct {
	ID      KeyID     `json:"id"`
	Tenant  TenantID  `json:"tenant"`
	Name    string    `json:"name"`
	Hash    []byte    `json:"hash"` // SHA-256 of the key's text
	Scopes  []string  `json:"scopes"`
	Created time.Time `json:"created_at"`
	Expires time.Time `json:"expires_at,omitzero"`
}

// A Secret signs a tenant's messages.
type Secret struct {
	Text    string    `json:"secret"` // whsec_…
	Created time.Time `json:"created_at"`
	Until   time.Time `json:"until,omitzero"` // signs no longer after this; zero: current
}

// Keeper is the care of the store itself.
type Keeper interface {
	// Check walks every record and every invariant, and returns what is
	// wrong; nil if the store is sound.
	Check(ctx context.Context) error

	// Crashed reports whether the store was not closed the last time: its
	// process died. Then an item may have been what it died of.
	Crashed() bool

	// Failed is closed when the store cannot know its state any more.
	Failed() <-chan struct{}

	// Err says why Failed was closed.
	Err() error

	// Close finishes what is under way and lets go of the file.
	Close() error
}
