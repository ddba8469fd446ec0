package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// receiverArgument makes this program run as the receiver, which is a separate process.
const receiverArgument = "receiver"

// serveReceiver answers every POST with 200 and counts it. GET /count returns their number, GET /arrivals when each
// response arrived (for POSTs to /timed), and GET /forget resets both. It exits when its standard input is closed.
func serveReceiver() error {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	var count atomic.Int64
	var mu sync.Mutex
	arrivals := map[string]int64{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /count", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, count.Load()) })
	mux.HandleFunc("GET /arrivals", func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		_ = json.NewEncoder(w).Encode(arrivals)
	})
	mux.HandleFunc("GET /forget", func(http.ResponseWriter, *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		clear(arrivals)
		count.Store(0)
	})
	mux.HandleFunc("POST /timed", func(_ http.ResponseWriter, r *http.Request) {
		now := time.Now().UnixNano()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		_, rest, _ := strings.Cut(string(body), `"ResponseId":`)
		mu.Lock()
		arrivals[strings.TrimRight(rest, "}")] = now
		mu.Unlock()
		count.Add(1)
	})
	mux.HandleFunc("POST /", func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		count.Add(1)
	})
	fmt.Println(listener.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	return (&http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}).Serve(listener)
}

// receiver is such a process.
type receiver struct {
	url   string
	cmd   *exec.Cmd
	stdin io.Closer
}

func startReceiver(ctx context.Context) (*receiver, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start the receiver: %w", err)
	}
	r := &receiver{cmd: exec.CommandContext(ctx, self, receiverArgument)}
	r.cmd.Stderr = os.Stderr
	stdin, err := r.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start the receiver: %w", err)
	}
	r.stdin = stdin
	stdout, err := r.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start the receiver: %w", err)
	}
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the receiver: %w", err)
	}
	address, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		r.close()
		return nil, fmt.Errorf("start the receiver: %w", err)
	}
	r.url = "http://" + strings.TrimSpace(address)
	return r, nil
}

func (r *receiver) close() {
	_ = r.stdin.Close()
	_ = r.cmd.Wait()
}

func (r *receiver) get(ctx context.Context, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+path, http.NoBody)
	if err != nil {
		return "", fmt.Errorf("ask the receiver: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("ask the receiver: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", fmt.Errorf("ask the receiver: %w", err)
	}
	return string(text), nil
}

// count returns how many POSTs have arrived.
func (r *receiver) count(ctx context.Context) (int, error) {
	text, err := r.get(ctx, "/count")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

// arrivals returns when each response's POST arrived, in nanoseconds since 1970.
func (r *receiver) arrivals(ctx context.Context) (map[string]int64, error) {
	text, err := r.get(ctx, "/arrivals")
	if err != nil {
		return nil, err
	}
	var arrivals map[string]int64
	if err := json.Unmarshal([]byte(text), &arrivals); err != nil {
		return nil, fmt.Errorf("read the arrivals: %w", err)
	}
	return arrivals, nil
}

func (r *receiver) forget(ctx context.Context) error {
	_, err := r.get(ctx, "/forget")
	return err
}
