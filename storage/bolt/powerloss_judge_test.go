package bolt_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/bolt"
)

// verdict is what a judge found in a store file.
type verdict struct {
	View string `json:"view"` // what the store shows
	Err  string `json:"err"`  // why it does not
}

// judgeTime is how long a state may take; a judge that takes longer hangs.
const judgeTime = time.Minute

// judge opens store files in a process of its own: a damaged file may crash
// or hang whoever maps it into memory.
type judge struct {
	cmd   *exec.Cmd
	ask   io.WriteCloser
	heard chan verdict // closed when the process ended
	words bytes.Buffer // its stderr, to be read after close
}

// judging is the variable that makes TestPowerLoss a judge.
const judging = "CALLBATCH_JUDGE"

func newJudge() (*judge, error) {
	j := &judge{heard: make(chan verdict)}
	j.cmd = exec.Command(os.Args[0], "-test.run=^TestPowerLoss$")
	j.cmd.Env = append(os.Environ(), judging+"=1")
	j.cmd.Stderr = &j.words
	answers, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	j.cmd.ExtraFiles = []*os.File{w}
	if j.ask, err = j.cmd.StdinPipe(); err == nil {
		err = j.cmd.Start()
	}
	if err != nil {
		answers.Close()
		return nil, err
	}
	go j.listen(answers)
	return j, nil
}

// listen ends with the process, which close ends.
func (j *judge) listen(answers *os.File) {
	defer close(j.heard)
	defer answers.Close()
	for d := json.NewDecoder(answers); ; {
		var v verdict
		if d.Decode(&v) != nil {
			return
		}
		j.heard <- v
	}
}

// errDied says that a state was the end of its judge.
var errDied = errors.New("the process that opened it crashed")

// look judges a file. After an error the judge is of no use.
func (j *judge) look(path string) (verdict, error) {
	if _, err := fmt.Fprintln(j.ask, path); err != nil {
		return verdict{}, errDied
	}
	select {
	case v, ok := <-j.heard:
		if !ok {
			return v, errDied
		}
		return v, nil
	case <-time.After(judgeTime):
		return verdict{}, fmt.Errorf("the process that opened it hung for %v", judgeTime)
	}
}

func (j *judge) close() {
	j.ask.Close()
	_ = j.cmd.Process.Kill() // it may have ended by itself
	for range j.heard {
	}
	_ = j.cmd.Wait() // killed
}

// serveJudge is the life of a judge: paths in, verdicts out.
func serveJudge() {
	out := json.NewEncoder(os.NewFile(3, "verdicts"))
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		text, err := open(in.Text())
		v := verdict{View: text}
		if err != nil {
			v.Err = err.Error()
		}
		if err := out.Encode(v); err != nil {
			os.Exit(1)
		}
	}
	os.Exit(0)
}

// open opens the store at path, checks it, and returns what it shows.
func open(path string) (text string, err error) {
	ctx := context.Background()
	s, err := bolt.Open(path, small)
	if err != nil {
		return "", fmt.Errorf("open: %w", err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.Check(ctx); err != nil {
		return "", fmt.Errorf("check: %w", err)
	}
	return view(ctx, s, tenants)
}

// small is for files that stay so.
var small = bolt.Options{GrowBytes: 64 << 10, MmapBytes: 64 << 20}

// tenants own what the test makes.
var tenants = []batch.TenantID{{}, {1}}
