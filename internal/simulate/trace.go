package simulate

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Trace is what was called, by application or function.
type Trace struct {
	Apps  []App
	Until time.Duration // when it ends, counted from its begin
}

// App is one of them.
type App struct {
	Name   string
	Memory faas.Bytes    // that an instance of it needs while it works; 0: not known
	Cold   time.Duration // that a cold start took where the trace comes from; 0: not known
	Calls  []Call        // by begin
}

// Call is a time in which one instance works.
type Call struct{ Begin, End time.Duration }

// Read reads a trace. Three forms are told apart by their first line:
//
//   - app, avg_mem_mb, and a column for each minute, 1 and on: how many instances the application
//     needs in that minute, which then work all of it (Azure's trace of 2019 in this form is part of
//     FeMux, EuroSys 2026);
//   - func_name, invoke_time_ms: one line a call, how long it takes is in meta: func_name,
//     cold_dur_ms, warm_dur_ms, mem_mb (Ilúvatar, HPDC 2023);
//   - function, begin_ms, duration_ms, memory_mb: one line a call.
func Read(r io.Reader, meta io.Reader) (*Trace, error) {
	lines := csv.NewReader(r)
	lines.ReuseRecord = true
	head, err := lines.Read()
	if err != nil {
		return nil, fmt.Errorf("read trace: %w", err)
	}
	head = slices.Clone(head)
	switch {
	case len(head) > 2 && head[0] == "app" && slices.Contains(head, "1"):
		return readMinutes(lines, head)
	case len(head) >= 2 && head[0] == "func_name" && head[1] == "invoke_time_ms":
		if meta == nil {
			return nil, faas.Errorf(faas.Invalid, "read trace", "it does not say how long calls take").
				WithFix("name the file that does: --meta FILE, with func_name, cold_dur_ms, warm_dur_ms, mem_mb")
		}
		return readInvocations(lines, meta)
	case slices.Contains(head, "function") && slices.Contains(head, "begin_ms"):
		return readCalls(lines, head)
	}
	return nil, faas.Errorf(faas.Invalid, "read trace", "its first line is none that is known: %s", strings.Join(head[:min(len(head), 4)], ",")).
		WithFix("write one line a call, the first being: function,begin_ms,duration_ms,memory_mb")
}

// columns finds the columns of a first line; -1 where there is none.
func columns(head []string, names ...string) []int {
	at := make([]int, len(names))
	for i, n := range names {
		at[i] = slices.Index(head, n)
	}
	return at
}

func number(line []string, column int) (float64, error) {
	if column < 0 || column >= len(line) {
		return 0, nil
	}
	return strconv.ParseFloat(line[column], 64)
}

func milliseconds(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
func mebibytes(mb float64) faas.Bytes       { return faas.Bytes(mb * float64(faas.MiB)) }

func readMinutes(lines *csv.Reader, head []string) (*Trace, error) {
	first := slices.Index(head, "1")
	memory := slices.Index(head, "avg_mem_mb")
	t := &Trace{Until: time.Duration(len(head)-first) * time.Minute}
	for n := 2; ; n++ {
		line, err := lines.Read()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read trace: %w", err)
		}
		mb, err := number(line, memory)
		if err != nil {
			return nil, fmt.Errorf("read trace, line %d: %w", n, err)
		}
		a := App{Name: strings.Clone(line[0]), Memory: mebibytes(mb)}
		// An instance that is needed in minutes that follow each other works through.
		var open []time.Duration // begins
		for i, text := range line[first:] {
			want, err := strconv.ParseFloat(text, 64)
			if err != nil || want < 0 || want > 1e5 {
				return nil, fmt.Errorf("read trace, line %d, minute %d: %q is no number of instances", n, i+1, text)
			}
			now := time.Duration(i) * time.Minute
			for len(open) > int(want) {
				a.Calls = append(a.Calls, Call{open[len(open)-1], now})
				open = open[:len(open)-1]
			}
			for len(open) < int(want) {
				open = append(open, now)
			}
		}
		for _, begin := range open {
			a.Calls = append(a.Calls, Call{begin, t.Until})
		}
		a.sort()
		t.Apps = append(t.Apps, a)
	}
}

func (a *App) sort() {
	slices.SortStableFunc(a.Calls, func(x, y Call) int { return int(x.Begin - y.Begin) })
}

func readInvocations(lines *csv.Reader, meta io.Reader) (*Trace, error) {
	about := csv.NewReader(meta)
	head, err := about.Read()
	if err != nil {
		return nil, fmt.Errorf("read what a trace is about: %w", err)
	}
	at := columns(head, "func_name", "cold_dur_ms", "warm_dur_ms", "mem_mb")
	if slices.Contains(at, -1) {
		return nil, faas.Errorf(faas.Invalid, "read trace", "what says how long calls take lacks a column").
			WithFix("its first line is: func_name,cold_dur_ms,warm_dur_ms,mem_mb")
	}
	rows, err := about.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read what a trace is about: %w", err)
	}
	t := &Trace{}
	index, takes := map[string]int{}, []time.Duration{}
	for _, row := range rows {
		cold, err1 := number(row, at[1])
		warm, err2 := number(row, at[2])
		mb, err3 := number(row, at[3])
		if err := errors.Join(err1, err2, err3); err != nil {
			return nil, fmt.Errorf("read what a trace is about: %w", err)
		}
		index[row[at[0]]] = len(t.Apps)
		t.Apps = append(t.Apps, App{Name: row[at[0]], Memory: mebibytes(mb), Cold: milliseconds(cold - warm)})
		takes = append(takes, milliseconds(warm))
	}
	for n := 2; ; n++ {
		line, err := lines.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read trace: %w", err)
		}
		i, ok := index[line[0]]
		ms, err := number(line, 1)
		if !ok || err != nil || ms < 0 {
			return nil, fmt.Errorf("read trace, line %d: %q is no call of a function that is known", n, strings.Join(line, ","))
		}
		c := Call{Begin: milliseconds(ms), End: milliseconds(ms) + takes[i]}
		t.Apps[i].Calls = append(t.Apps[i].Calls, c)
		t.Until = max(t.Until, c.End)
	}
	for i := range t.Apps {
		t.Apps[i].sort()
	}
	return t, nil
}

func readCalls(lines *csv.Reader, head []string) (*Trace, error) {
	at := columns(head, "function", "begin_ms", "duration_ms", "memory_mb")
	t := &Trace{}
	index := map[string]int{}
	for n := 2; ; n++ {
		line, err := lines.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read trace: %w", err)
		}
		begin, err1 := number(line, at[1])
		takes, err2 := number(line, at[2])
		mb, err3 := number(line, at[3])
		if err := errors.Join(err1, err2, err3); err != nil || begin < 0 || takes < 0 {
			return nil, fmt.Errorf("read trace, line %d: %q is no call", n, strings.Join(line, ","))
		}
		i, ok := index[line[at[0]]]
		if !ok {
			i = len(t.Apps)
			name := strings.Clone(line[at[0]])
			index[name] = i
			t.Apps = append(t.Apps, App{Name: name})
		}
		a := &t.Apps[i]
		a.Memory = max(a.Memory, mebibytes(mb))
		c := Call{Begin: milliseconds(begin), End: milliseconds(begin + takes)}
		a.Calls = append(a.Calls, c)
		t.Until = max(t.Until, c.End)
	}
	for i := range t.Apps {
		t.Apps[i].sort()
	}
	return t, nil
}

// Jitter lets each call begin and end later, by up to most: a trace that knows minutes alone shows
// calls more evenly than they came.
func (t *Trace) Jitter(most time.Duration, chance *rand.Rand) {
	for i := range t.Apps {
		a := &t.Apps[i]
		for j := range a.Calls {
			c := &a.Calls[j]
			c.Begin += time.Duration(chance.Int64N(int64(most)))
			c.End = max(c.End+time.Duration(chance.Int64N(int64(most))), c.Begin)
			t.Until = max(t.Until, c.End)
		}
		a.sort()
	}
}
