// Package batch is what Callbatch is about: batches of items that are worked
// on one by one and reported to a callback, and every decision on the way. It
// imports the standard library only. Engines, stores and the API call it; it
// calls none of them.
//
// # The story
//
// A client posts items with a callback URL. Intake reads the body as a stream,
// checks every item and cuts the items into [Block]s of at most 256, in input
// order. The blocks go to the [Store] while the upload still runs, unseen; the
// last step makes the batch exist, whole, and only then the client reads 202.
//
// A batch may also be sent in parts, in any order and more than once, so that
// a broken upload goes on where it was. Each [Part] becomes durable by itself;
// to seal the batch is one small step that writes down where each part begins
// ([Layout]). Whatever a client sends again may bear a key that was bound to
// the first time in the transaction that did the work ([Once], [Binding]).
//
// From here on everything moves in blocks. The engine claims a block, which
// writes nothing but a [Lease], and hands its items to a [Processor] as slots
// come free. What becomes of an item is a [Result], or an [Again] when it is
// to be tried once more. Results of many blocks and batches are recorded in
// one transaction. Where that transaction finishes a block of a larger batch,
// it also makes the [Message] with the block's results; where it finishes the
// last block, it ends the batch and makes the terminal message. So there is
// no ended batch without its message, and no message that says more than the
// API does.
//
// A message is tried until it is acknowledged or refused, or its schedule or
// its time is spent. Each attempt is recorded as begun before a byte leaves and
// closed after; the body is the same bytes every time, because its ends are
// frozen and the results between them never change. Messages queue by tenant
// and host. What a host may be sent at once it has to earn, and while its
// breaker is open it is sent nothing, which costs no attempts: that is its
// [Health]. The terminal message waits, for a bounded time, until each of the
// round's result messages was settled once. What was settled can be sent once
// more, one message or many ([Redelivery]).
//
// A client that would rather fetch has its messages made and not sent
// ([ModePull]). One that asked for it has word of the progress on the way,
// which is tried once and replaced by the next. And whoever has a message may
// follow its links without a key, for as long as the batch is there ([Links]).
//
// What did not succeed in a batch that has ended can be tried again in its next
// [Round]. Opening one is a small step, too: its blocks are laid out after it,
// some at a time. What an item's result is follows from what was recorded of
// it and from how the rounds ended ([Rounds]). A batch that is deleted, or was
// kept long enough, leaves a tombstone at once, and what it held goes bit by
// bit.
//
// Who watches a batch is hinted at its changes once they are durable, and reads
// it ([Watches]). A batch that moves has a [Pace]; one that does not says why
// ([Standstill]).
//
// # A batch
//
//	         parts, seal
//	open ─────────────────▶ queued ◀──────────── retry: the next round ───────────┐
//	                          │ first item starts                                  │
//	             pause        ▼                                                    │
//	paused ◀──────────────▶ running ──── every item has its result ──▶ completed ──┤
//	   │         resume       │                                                    │
//	   │                      ├── cancel ──▶ canceling ── none in flight ▶ canceled┤
//	   └── cancel, deadline ──┤                                                    │
//	                          └── deadline ────────────────────────────▶ expired ──┘
//
// What has no result when a batch is canceled or expires gets one by
// arithmetic: the counts move in the record of the batch, and the lines of
// these items are derived when they are read. Whatever concerns a whole batch
// is one small record, however many items it has: a pause, a cancel, a deadline
// that passes, a failure too many. Nothing more of the batch starts then, what
// is in flight finishes and is recorded, and a batch that was stopped ends when
// nothing of it is in anybody's hands. What stopped it first is how it ends. Of
// failures a node knows before they are recorded: it counts those of the batches
// it has in hand, so that with a failure too many nothing more begins at once.
//
// What a batch asked for its owner may amend. Its spec is replaced then, never
// changed, so whoever has the last one in hand goes on with that.
//
// # An item, in one round
//
//	           a slot                    ┌─▶ succeeded
//	pending ───────────▶ running ────────┤
//	   ▲                    │            └─▶ failed
//	   └── again, at t ─────┘
//	pending ── the batch ends ──▶ canceled, expired
//
// # A message
//
//	made ── to be pulled ───────────────────────────▶ pulled
//	 │      claimed, attempt n begun         2xx
//	waiting ─────────────────────▶ sending ─────────▶ delivered
//	 ▲ │                              │   410, 413, schedule spent
//	 │ └── time spent ────────────────┼─────────────▶ exhausted
//	 ├──── anything else, at t ───────┤   refused by policy
//	 ├──── the process died ──────────┴─────────────▶ blocked
//	 └──── redelivered ── whatever is settled
//
// A message whose host's breaker is open waits, and is shown as parked. One
// that is not wanted any more is canceled.
//
// # What holds at every moment
//
//   - A batch that was answered with 202 survives any crash, whole.
//   - An item ends with exactly one recorded result in each round it is in. It
//     may be tried more than once, always with the same idempotency key, and is
//     never recorded twice: a [Report] whose lease is another's changes nothing.
//   - Nothing is shown that a crash could take back. Counts sum to the total
//     in every answer.
//   - The end of a batch and the message announcing it are one transaction.
//   - Every attempt of a message bears the same id and the same bytes, also
//     when it is sent again.
//   - The ledger of a batch is what counting its messages gives.
//   - Work that our own stop cuts short costs no attempt.
//
// # Who decides
//
// Stores carry, this package decides. May work of the batch start: [Gate.Open].
// What does its owner's wish do to it: [Progress.Cancel], [Progress.Pause],
// [Progress.Resume], [Progress.Amend]. What do its deadline and its failures:
// [Progress.Lapse], [Progress.Strain], [Spec.Bears]. Is the batch over:
// [Progress.Over]. What does a report change: [BlockState.Apply], [Progress.Absorb]. When is
// the next try: [Policy.Next]. Is it the item that kills its workers, or the
// process: [Failure.At], [Fatal]. What goes into which message: [RangeMessages],
// [EndMessages], [ProgressMessage]. What does an attempt leave behind:
// [Message.Close], [Health.After]. May the terminal message go:
// [Progress.Deliver]. May a host be sent more: [Health.Allows]. What is sent
// again: [Message.Redeliver], [Redelivery.Wants]. Are the parts a whole batch:
// [CheckParts], [Repeats]. Is a request the same again: [Binding.Replays]. What
// result has an item in a round: [Rounds.Outcome]. May a batch go:
// [Progress.Delete], [Progress.Outlived]. What does a link open: [Links.Tenant].
// All of them are pure functions, called inside the transaction that keeps their
// answer.
package batch
