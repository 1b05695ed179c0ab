package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
)

// resident measures what an instance holds that waits for its next call.
func (b *bench) resident(ctx context.Context) error {
	if err := b.need("wait"); err != nil {
		return err
	}
	p, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	ready := func(n api.Node) (sum int) {
		for _, s := range n.Stems {
			sum += s.Ready
		}
		return sum
	}
	stems := ready(p.settle(ctx, 3*time.Second))
	n, root := b.cfg.Many, p.cmd.Process.Pid
	before := map[int]bool{}
	for _, pid := range tree(root) {
		before[pid] = true
	}
	fds := look(root, prefix)
	memBefore := available()
	rss := kib(root, "status", "RssAnon")
	// All calls wait for the same moment, so each has an instance of its own; if they took longer
	// to make, the moment is put off.
	var standing int
	for wait := 10 * time.Second; ; wait *= 2 {
		input := fmt.Sprintf(`{"until":%f}`, float64(time.Now().Add(wait).UnixMicro())/1e6)
		_, s, err := volley(ctx, p.addr, post(p.addr, "/f/default/wait/", "", input), n)
		if err != nil {
			return err
		}
		if s.Failed > 0 {
			return fmt.Errorf("%d of %d calls failed: %w", s.Failed, n, s.Failure)
		}
		standing = 0
		for _, in := range p.settle(ctx, time.Second).Instances {
			if in.Function == "wait" {
				standing++
			}
		}
		if standing >= n || wait > 40*time.Second {
			break
		}
	}
	// What was made ready for more of the kind goes in a minute, and is no instance's.
	for since := time.Now(); ready(p.settle(ctx, time.Second)) > stems && time.Since(since) < 2*time.Minute && ctx.Err() == nil; {
	}
	var pss, tables, stacks int64
	count := 0
	for _, pid := range tree(root) {
		if before[pid] {
			continue
		}
		pss += kib(pid, "smaps_rollup", "Pss")
		tables += kib(pid, "status", "VmPTE")
		threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		stacks += 16 * int64(len(threads))
		count++
	}
	after := look(root, prefix)
	if standing == 0 || count == 0 {
		return errors.New("no instance is left")
	}
	per := func(kb int64) float64 { return float64(kb) / float64(standing) }
	b.result.set("warm_instance_kb", per(pss+tables+stacks))
	b.result.set("warm_instance_pss_kb", per(pss))
	b.result.set("warm_instance_machine_kb", per(memBefore-available()))
	b.result.set("warm_instance_server_kb", per(kib(root, "status", "RssAnon")-rss))
	b.result.set("warm_instance_descriptors", float64(after.Descriptors-fds.Descriptors)/float64(standing))
	b.result.note("warm_instance_standing", standing)
	b.result.printf("\n%d instances in %d processes, each: PSS %.0f kB, page tables %.0f kB, stacks %.0f kB; of the machine %.0f kB; in the server %.1f kB and %.2f descriptors\n",
		standing, count, per(pss), per(tables), per(stacks), per(memBefore-available()), per(kib(root, "status", "RssAnon")-rss), float64(after.Descriptors-fds.Descriptors)/float64(standing))
	b.result.note("warm_instance_descriptor_kinds", kinds(root))
	return nil
}

// kinds counts a process's descriptors by what they are.
func kinds(pid int) map[string]int {
	out := map[string]int{}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, _ := os.ReadDir(dir)
	for _, fd := range fds {
		at, _ := os.Readlink(filepath.Join(dir, fd.Name()))
		kind, _, _ := strings.Cut(at, ":[")
		if i := strings.LastIndexByte(kind, '/'); i > 0 && strings.HasPrefix(kind, "/") {
			kind = "file .../" + kind[i+1:]
		}
		out[kind]++
	}
	for kind, n := range out {
		if n < 10 {
			delete(out, kind)
		}
	}
	return out
}

// available is what the machine's memory could still be used for, in KiB.
func available() int64 { return kib0("/proc/meminfo", "MemAvailable") }

// scale measures functions that are deployed and idle.
func (b *bench) scale(ctx context.Context) error {
	dir, err := roomy(b.dir)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	first, err := startPlatform(ctx, b.cfg.Binary, dir)
	if err != nil {
		return err
	}
	public := true
	_, err = first.client.Deploy(ctx, "default", "python", api.Spec{Language: "python", Public: &public}, api.Code{Filename: "hello.py", Reader: strings.NewReader(pythonCode)})
	if err == nil {
		err = b.deployRate(ctx, first)
	}
	first.stop()
	if err != nil {
		return err
	}
	// The same server with nothing deployed to speak of, after as long a rest.
	rss := func() (int64, *platform, error) {
		p, err := startPlatform(ctx, b.cfg.Binary, dir, soonGone)
		if err != nil {
			return 0, nil, err
		}
		p.settle(ctx, 30*time.Second)
		return kib(p.cmd.Process.Pid, "status", "VmRSS"), p, nil
	}
	empty, p, err := rss()
	if err != nil {
		return err
	}
	p.stop()
	l := &batch{template: "python", prefix: "idle", n: b.cfg.Scale}
	began := time.Now()
	if err := seed(ctx, dir, l); err != nil {
		return err
	}
	b.result.note("seeded_per_s", int(float64(l.n)/time.Since(began).Seconds()))
	full, p, err := rss()
	if err != nil {
		return err
	}
	defer p.stop()
	b.result.set("idle_function_bytes", float64(full-empty)*1024/float64(l.n))
	b.result.set("idle_ready_ms", ms(p.ready))
	b.result.note("idle_functions", l.n)
	b.result.printf("\n%d functions: %d kB with them, %d kB without; ready %.1f s after the start\n", l.n, full, empty, p.ready.Seconds())
	names := make([]string, 400)
	for i := range names {
		names[i] = l.name(rand.IntN(l.n)).String()
	}
	slices.Sort(names)
	names = slices.Compact(names)
	rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	ours := p.side("brasa python", names...)
	ours.Once, ours.Pause = true, pause
	got, err := run(ctx, ours, len(names), 1)
	if err != nil {
		return err
	}
	b.result.table(fmt.Sprintf("calls of %d idle functions of %d", len(names), l.n), got)
	b.result.quantiles("idle_call", got)
	return nil
}

// deployRate notes how many functions a second can be deployed through the API.
func (b *bench) deployRate(ctx context.Context, p *platform) error {
	const clients, each = 4, 25
	var wg sync.WaitGroup
	errs := make([]error, clients)
	began := time.Now()
	for c := range clients {
		wg.Go(func() {
			for i := range each {
				code := fmt.Sprintf("%s\n# %d\n", pythonCode, c*each+i)
				if _, err := p.client.Deploy(ctx, "default", fmt.Sprintf("deployed-%d-%d", c, i), api.Spec{Language: "python"},
					api.Code{Filename: "hello.py", Reader: strings.NewReader(code)}); err != nil {
					errs[c] = err
					return
				}
			}
		})
	}
	wg.Wait()
	b.result.note("deploys_per_s", int(clients*each/time.Since(began).Seconds()))
	return errors.Join(errs...)
}

// roomy returns a folder in memory if there is room, since writing that many functions one by one
// waits for the disk most of the time, else one beside the others.
func roomy(dir string) (string, error) {
	const need = 2 << 20 // KiB
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() && available() > 2*need {
		if dir, err := os.MkdirTemp("/dev/shm", "brasa-bench-"); err == nil {
			return dir, nil
		}
	}
	return os.MkdirTemp(dir, "scale-")
}
