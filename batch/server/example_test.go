package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/server"
)

// A Go program registers a function as a processor and runs the whole server.
func Example() {
	double := func(_ context.Context, c batch.Call) ([]byte, error) {
		var n int
		if err := json.Unmarshal(c.Item, &n); err != nil {
			return nil, &batch.Failure{Code: "app.not_a_number", Message: "send whole numbers"}
		}
		return json.Marshal(2 * n)
	}

	dir, err := os.MkdirTemp("", "callbatch")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ctx, stop := context.WithCancel(context.Background())
	ready, done := make(chan net.Addr, 1), make(chan error, 1)
	go func() {
		done <- server.Run(ctx, server.Options{
			Listen: "127.0.0.1:0", Store: filepath.Join(dir, "callbatch.db"), Dev: true,
			Processors:       map[string]server.Processor{"double": {Do: batch.ProcessorFunc(double)}},
			DefaultProcessor: "double",
			Limits:           server.Limits{MinFree: 16 << 20, MinWork: 8 << 20},
			Ready:            func(a net.Addr) { ready <- a },
		})
	}()
	url := "http://" + (<-ready).String() + "/v1/batches"

	resp, err := http.Post(url, "application/x-ndjson", strings.NewReader("1\n2\n\"three\"\n"))
	if err != nil {
		panic(err)
	}
	fmt.Println(resp.Status)
	var b struct{ ID, Status string }
	for json.NewDecoder(resp.Body).Decode(&b); b.Status != "completed"; {
		resp, err = http.Get(url + "/" + b.ID)
		if err != nil {
			panic(err)
		}
		json.NewDecoder(resp.Body).Decode(&b)
		resp.Body.Close()
	}
	resp, err = http.Get(url + "/" + b.ID + "/results")
	if err != nil {
		panic(err)
	}
	results, _ := io.ReadAll(resp.Body)
	for line := range strings.Lines(string(results)) {
		line, _, _ = strings.Cut(line, `,"attempts"`)
		fmt.Println(line)
	}
	stop()
	fmt.Println(<-done)
	// Output:
	// 202 Accepted
	// {"index":0,"id":"0","status":"succeeded","output":2
	// {"index":1,"id":"1","status":"succeeded","output":4
	// {"index":2,"id":"2","status":"failed","error":{"code":"app.not_a_number","message":"send whole numbers"}
	// <nil>
}
