package engine

import (
	"time"

	"github.com/callbatch/callbatch/batch"
)

// A Processor is a named way to work on items with the bounds that go with
// it. Only Do is required.
type Processor struct {
	Do   batch.Processor
	Kind string // "jq", "http", "exec", "func": what the API says it is; default "func"

	Concurrency int           // most items in flight on this node; default 64
	Rate        float64       // most attempts started a second on this node; 0: unbounded
	Timeout     time.Duration // of one attempt, kept to 1/64 of it; default 30 s
	Policy      batch.Policy  // attempts and backoff of an item
	Outside     bool          // Do has others do the work: no item of it can take this process down
	Schema      []byte        // JSON Schema that items have to fit to be accepted; default: all do. It is the server's affair
	Trusted     bool          // Do never returns anything but one valid JSON value: its outputs are not checked again
}

// Defaults of a [Processor].
const (
	DefaultMaxOutput   = 1 << 20 // bytes
	DefaultConcurrency = 64
	DefaultTimeout     = 30 * time.Second
)

// WithDefaults returns p with the zero fields filled in.
func (p Processor) WithDefaults() Processor {
	if p.Kind == "" {
		p.Kind = "func"
	}
	if p.Concurrency == 0 {
		p.Concurrency = DefaultConcurrency
	}
	if p.Timeout == 0 {
		p.Timeout = DefaultTimeout
	}
	p.Policy = p.Policy.WithDefaults()
	return p
}
