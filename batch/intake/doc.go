// Package intake turns a request body into the blocks of a batch.
//
// A submission is read once, as a stream: memory stays flat however large the
// body is. Where items stand before the options that decide how they are judged
// (in a JSON document or a form) they wait in a temporary file. What it says must have one meaning only, so JSON is read strictly
// (RFC 7493): no duplicate members, no invalid UTF-8, no lone surrogates. The
// bytes of an item are kept as they were sent.
//
// A wrong submission is told everything that is wrong with it, up to
// [batch.MaxProblems] places. What makes the rest unreadable or is over a
// limit ends the reading at once.
package intake
