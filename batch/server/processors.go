package server

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/api"
	"github.com/callbatch/callbatch/batch/schema"
)

// compileSchemas returns the schemas of the processors that have one.
func compileSchemas(ps map[string]Processor) (map[string]*schema.Schema, error) {
	schemas := map[string]*schema.Schema{}
	for name, p := range ps {
		if p.Schema == nil {
			continue
		}
		s, err := schema.Compile(p.Schema)
		if err != nil {
			return nil, fmt.Errorf("processors.%s.schema: %w", name, err)
		}
		schemas[name] = s
	}
	return schemas, nil
}

// itemChecks returns what says how the items for a processor are checked, nil
// if there is nothing to check: then items need not wait for their options.
func (s *server) itemChecks() func(batch.Options) func([]byte) []batch.Problem {
	if len(s.schemas) == 0 {
		return nil
	}
	return func(o batch.Options) func([]byte) []batch.Problem {
		if sch := s.schemas[o.Processor]; sch != nil {
			return sch.Check
		}
		return nil
	}
}

func (s *server) hasProcessor(name string) bool {
	_, ok := s.o.Processors[name]
	return ok
}

func (s *server) processors() []api.Processor {
	var list []api.Processor
	for name, p := range s.o.Processors {
		one := api.Processor{Name: name, Kind: p.WithDefaults().Kind, Health: s.engine.Health(name)}
		if sch := s.schemas[name]; sch != nil {
			one.Schema = sch.JSON()
		}
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b api.Processor) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// giveLogs gives a logger to the processors that want one.
func giveLogs(ps map[string]Processor, log *slog.Logger) {
	for name, p := range ps {
		if l, ok := p.Do.(interface{ LogTo(*slog.Logger) }); ok {
			l.LogTo(log.With("processor", name))
		}
	}
}

// closeAll closes the processors that hold something, all at once.
func closeAll(ps map[string]Processor) {
	var closing sync.WaitGroup
	for _, p := range ps {
		if c, ok := p.Do.(interface{ Close() }); ok {
			closing.Go(c.Close)
		}
	}
	closing.Wait()
}
