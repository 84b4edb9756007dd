package main

import (
	"bufio"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func cmdListener(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: listener [FLAG…]")
	}
	bin, err := exec.LookPath("callbatch")
	ts.Check(err)
	out, err := os.Create(ts.MkAbs("listen.out"))
	ts.Check(err)
	cmd := exec.Command(bin, append([]string{"listen", "--listen", "127.0.0.1:0"}, args...)...)
	cmd.Dir, cmd.Stdout = ts.Getenv("WORK"), out
	for _, name := range []string{"CALLBATCH_URL", "CALLBATCH_KEY", "CALLBATCH_SECRET"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	stderr, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		ts.Check(cmd.Process.Signal(syscall.SIGTERM))
		ts.Check(cmd.Wait())
		ts.Check(out.Close())
	})
	line, err := bufio.NewReader(stderr).ReadString('\n')
	ts.Check(err)
	url, ok := strings.CutPrefix(strings.TrimSpace(line), "callback_url: ")
	if !ok {
		ts.Fatalf("listen says %q, not where it listens", line)
	}
	ts.Setenv("LISTENER", url)
}

func cmdHeard(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: heard REGEXP")
	}
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for deadline := time.Now().Add(scriptPatience); !want.MatchString(ts.ReadFile("listen.out")); {
		if time.Now().After(deadline) {
			ts.Fatalf("listen has shown\n%s", ts.ReadFile("listen.out"))
		}
		time.Sleep(10 * time.Millisecond)
	}
}
