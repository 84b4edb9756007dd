package command

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain makes the test binary a worker if it is started as one.
func TestMain(m *testing.M) {
	if how := os.Getenv("WORKER"); how != "" {
		work(how)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if left := children(); len(left) > 0 {
			fmt.Println("processes were left behind:", left)
			code = 1
		}
		os.Exit(code)
	}))
}

// children returns the processes that this one has.
func children() (pids []string) {
	tasks, _ := filepath.Glob("/proc/self/task/*/children") // a constant pattern
	for _, file := range tasks {
		text, _ := os.ReadFile(file) // a thread may be gone by now
		pids = append(pids, strings.Fields(string(text))...)
	}
	return pids
}

// A task is a line as a worker reads it.
type task struct {
	Batch, ID, Key string
	Index, Attempt int
	Item           json.RawMessage
}

// work answers items as they ask for it: {"do":…}. Anything else comes back
// with the worker's process id and the attempt.
func work(how string) {
	switch how {
	case "dies at start":
		os.Exit(3)
	case "never reads":
		time.Sleep(time.Hour)
	case "ignores SIGTERM":
		signal.Ignore(syscall.SIGTERM)
	case "floods stderr":
		go func() {
			for line := strings.Repeat("x", 10_000); ; {
				fmt.Fprintln(os.Stderr, line)
			}
		}()
	}
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			if how == "ignores SIGTERM" {
				time.Sleep(time.Hour)
			}
			return
		}
		var t task
		if err := json.Unmarshal(line, &t); err != nil {
			fmt.Println("not an item:", err)
			continue
		}
		var order struct {
			Do  string
			Say string
		}
		_ = json.Unmarshal(t.Item, &order) // items of another form ask for nothing
		switch order.Do {
		case "say":
			fmt.Println(order.Say)
		case "crash":
			os.Exit(7)
		case "terminate":
			_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
			time.Sleep(time.Hour)
		case "hang":
			time.Sleep(time.Hour)
		case "half":
			fmt.Print(`{"output":`)
			os.Exit(0)
		case "twice":
			fmt.Printf("{\"output\":%q}\n{\"output\":\"again\"}\n", t.ID)
		case "late":
			fmt.Printf("{\"output\":%q}\n", t.ID)
			time.Sleep(50 * time.Millisecond)
			fmt.Println(`{"output":"late"}`)
		case "close":
			os.Stdout.Close()
			time.Sleep(time.Hour)
		case "gigabyte":
			chunk := []byte(strings.Repeat("x", 1<<20))
			for range 1 << 10 {
				if _, err := os.Stdout.Write(chunk); err != nil {
					return
				}
			}
		case "child": // that outlives its parent and keeps its output open
			child := exec.Command("/bin/sleep", "1000")
			child.Stdout = os.Stdout
			if err := child.Start(); err != nil {
				panic(err)
			}
			fmt.Printf("{\"output\":%d}\n", child.Process.Pid)
		case "orphan":
			child := exec.Command("/bin/sleep", "1000")
			child.Stdout = os.Stdout
			if err := child.Start(); err != nil {
				panic(err)
			}
			os.Exit(9)
		case "env":
			out, _ := json.Marshal(os.Environ())
			fmt.Printf("{\"output\":%s}\n", out)
		default:
			out, _ := json.Marshal(map[string]any{"pid": os.Getpid(), "task": json.RawMessage(line)})
			fmt.Printf("{\"output\":%s}\n", out)
		}
	}
}
