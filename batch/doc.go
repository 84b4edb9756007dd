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
// A message is delivered until it is acknowledged or its schedule is spent.
// Each attempt is recorded as begun before a byte leaves and settled after;
// the body is the same bytes every time, because its ends are frozen and the
// results between them never change. The terminal message waits, for a
// bounded time, until the round's other messages are settled.
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
// is one small record, however many items it has.
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
//	            claimed, attempt n begun        2xx
//	waiting ───────────────────────▶ sending ─────────▶ delivered
//	   ▲                                │
//	   ├── anything else, at t ─────────┤   410, 413, schedule or window spent
//	   └── the process died ────────────┴──────────────▶ exhausted
//
// # What holds at every moment
//
//   - A batch that was answered with 202 survives any crash, whole.
//   - An item ends with exactly one recorded result a round. It may be tried
//     more than once, always with the same idempotency key, and is never
//     recorded twice: a [Report] whose lease is another's changes nothing.
//   - Nothing is shown that a crash could take back. Counts sum to the total
//     in every answer.
//   - The end of a batch and the message announcing it are one transaction.
//   - Every attempt of a message bears the same id and the same bytes.
//   - Work that our own stop cuts short costs no attempt.
//
// # Who decides
//
// Stores carry, this package decides. Is the batch over: [Progress.Over].
// What does a report change: [BlockState.Apply], [Progress.Absorb]. When is
// the next try: [Policy.Next]. What goes into which message: [RangeMessages],
// [EndMessages]. May the terminal message go: [Progress.Deliver]. All of them
// are pure functions, called inside the transaction that keeps their answer.
package batch
