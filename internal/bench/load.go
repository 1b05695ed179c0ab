package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Side is one of the things that are compared.
type Side struct {
	Name   string
	URL    string
	Method string
	Key    string // sent as a bearer token if not empty
	Body   []byte
	PID    int // root of the process tree whose processor time counts; 0: none
	Want   int // status; 0: 200

	// Do, if set, is one call instead of an HTTP request.
	Do func(ctx context.Context) error
}

// Compare calls the sides in turn, in blocks, until each has had calls many calls, clients at
// once. The first block of each is a warm-up and not counted.
func Compare(ctx context.Context, sides []Side, calls, clients, blocks int) ([]*Sample, error) {
	client := &http.Client{Transport: &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		MaxIdleConnsPerHost: clients * 2, DisableCompression: true,
	}}
	defer client.CloseIdleConnections()
	samples := make([]*Sample, len(sides))
	for i := range sides {
		samples[i] = &Sample{Name: sides[i].Name}
	}
	per := max(1, calls/blocks)
	for block := -1; block < blocks; block++ {
		for i, side := range sides {
			if ctx.Err() != nil {
				return samples, ctx.Err()
			}
			n := per
			if block < 0 {
				n = min(per, 200)
			}
			got := run(ctx, client, side, n, clients)
			if block < 0 {
				if got.Failure != nil {
					return samples, fmt.Errorf("%s: %w", side.Name, got.Failure)
				}
				continue
			}
			s := samples[i]
			s.took = append(s.took, got.took...)
			s.busy += got.busy
			s.cpu += got.cpu
			s.Failed += got.Failed
			if s.Failure == nil {
				s.Failure = got.Failure
			}
		}
	}
	return samples, nil
}

// run is one block.
func run(ctx context.Context, client *http.Client, side Side, calls, clients int) *Sample {
	total := &Sample{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	cpu := treeCPU(side.PID)
	began := time.Now()
	for c := range clients {
		n := calls / clients
		if c < calls%clients {
			n++
		}
		wg.Go(func() {
			mine := &Sample{}
			for range n {
				at := time.Now()
				err := side.call(ctx, client)
				if err != nil {
					mine.Failed++
					mine.Failure = err
					continue
				}
				mine.add(time.Since(at))
			}
			mu.Lock()
			defer mu.Unlock()
			total.took = append(total.took, mine.took...)
			total.Failed += mine.Failed
			if total.Failure == nil {
				total.Failure = mine.Failure
			}
		})
	}
	wg.Wait()
	total.busy = time.Since(began)
	total.cpu = max(treeCPU(side.PID)-cpu, 0)
	return total
}

func (s *Side) call(ctx context.Context, client *http.Client) error {
	if s.Do != nil {
		return s.Do(ctx)
	}
	method := s.Method
	if method == "" {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, s.URL, bytes.NewReader(s.Body))
	if err != nil {
		return err
	}
	if s.Key != "" {
		req.Header.Set("Authorization", "Bearer "+s.Key)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if want := max(s.Want, 0); want == 0 && res.StatusCode != http.StatusOK || want != 0 && res.StatusCode != want {
		return fmt.Errorf("status %d: %.300s", res.StatusCode, body)
	}
	return nil
}

// clockTick is the unit of times in /proc/PID/stat, USER_HZ, which is 100 on every architecture
// that we build for (proc_pid_stat(5)).
const clockTick = 10 * time.Millisecond

// treeCPU returns the processor time that a process and its descendants have used, those that
// were waited for included.
func treeCPU(root int) time.Duration {
	if root == 0 {
		return 0
	}
	type proc struct {
		parent int
		ticks  int64
	}
	procs := map[int]proc{}
	dirs, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range dirs {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
		_, rest, ok := strings.Cut(string(b), ") ")
		f := strings.Fields(rest)
		if !ok || len(f) < 15 {
			continue
		}
		var p proc
		p.parent, _ = strconv.Atoi(f[1])
		for _, i := range []int{11, 12, 13, 14} { // utime, stime, cutime, cstime
			n, _ := strconv.ParseInt(f[i], 10, 64)
			p.ticks += n
		}
		procs[pid] = p
	}
	var sum int64
	for pid, p := range procs {
		for at := pid; at > 1; at = procs[at].parent {
			if at == root {
				sum += p.ticks
				break
			}
		}
	}
	return time.Duration(sum) * clockTick
}
