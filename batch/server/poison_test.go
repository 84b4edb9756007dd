package server_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/server"
)

// TestAnItemThatTakesTheProcessDown runs a Go program with a processor that
// ends it at one of the items, and starts it anew until the batch has ended.
func TestAnItemThatTakesTheProcessDown(t *testing.T) {
	if path := os.Getenv("POISONED"); path != "" {
		poisoned(path)
	}
	store := filepath.Join(t.TempDir(), "callbatch.db")
	s := &site{t: t, o: server.Options{Store: store}}
	id, deaths := "", 0
	for ended := false; !ended; deaths++ {
		if deaths > 8 {
			t.Fatalf("it died %d times", deaths)
		}
		cmd := exec.Command(os.Args[0], "-test.run", "^TestAnItemThatTakesTheProcessDown$")
		cmd.Env = append(os.Environ(), "POISONED="+store)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		if !lines.Scan() {
			t.Fatal("it did not start")
		}
		s.base = "http://" + lines.Text()
		if id == "" {
			id = submit(t, http.DefaultClient, s.base, "processor=p", numbers(600))
			if err := os.WriteFile(store+".accepted", nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		died := make(chan struct{})
		go func() {
			defer close(died)
			_ = cmd.Wait() // it is meant to die
		}()
		for alive := true; alive && !ended; {
			select {
			case <-died:
				alive = false
			case <-time.After(20 * time.Millisecond):
				ended = s.hasEnded(id)
			}
		}
		if ended {
			s.judge(id, deaths)
		}
		_ = cmd.Process.Kill() // it may be dead
		<-died
	}
	s.check()
}

// hasEnded reports whether a server that may die just now says that a batch is
// over.
func (s *site) hasEnded(id string) bool {
	resp, err := http.Get(s.base + "/v1/batches/" + id)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	text, err := bufio.NewReader(resp.Body).ReadString('\n')
	return err == nil && strings.Contains(text, `"status":"completed"`)
}

func (s *site) judge(id string, deaths int) {
	s.t.Helper()
	s.t.Logf("it died %d times", deaths)
	for i, l := range s.results(id, "") {
		switch poison := strings.Contains(l, `"error":{"code":"poison","message":"the process died 5 times while it was worked on, at last 3 times while nothing else was"},"attempts":5,`); {
		case i == 300:
			if !poison {
				s.t.Errorf("got %s", l)
			}
		case !strings.Contains(l, `"status":"succeeded"`) || !strings.Contains(l, `"attempts":1,`):
			s.t.Errorf("got %s", l)
		}
	}
}

// poisoned is a server that dies of an item.
func poisoned(path string) {
	do := batch.ProcessorFunc(func(_ context.Context, c batch.Call) ([]byte, error) {
		for c.Index == 300 {
			if _, err := os.Stat(path + ".accepted"); err == nil { // or nobody would know the batch
				os.Exit(9)
			}
			time.Sleep(time.Millisecond)
		}
		return c.Item, nil
	})
	err := server.Run(context.Background(), server.Options{
		Listen: "127.0.0.1:0", Dev: true, Store: path, Limits: server.Limits{MinFree: 16 << 20, MinWork: 8 << 20},
		Processors: map[string]server.Processor{"p": {Do: do, Concurrency: 4}},
		Ready:      func(a net.Addr) { fmt.Println(a) },
	})
	panic(err)
}
