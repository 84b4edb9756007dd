// Package record is what the engines keep: how a block, a segment of results,
// a block's state, a batch, a message and an attempt look as bytes.
//
// Every record is sealed: a kind, the payload and a CRC-32C over the key it
// stands under, the kind and the payload, so that a damaged or misplaced
// record is reported and never served. Numbers are varints, times are
// milliseconds since 1970, and 0 is no time.
package record

// Version is the schema's version, kept by each engine beside the data. A
// store with another version is refused.
const Version = 3
