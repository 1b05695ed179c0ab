package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// What is written by hand is read by encoding/json as it was, whatever it holds: each field of an
// activation, and each text that a function may give.
func TestRecordIsWrittenWhole(t *testing.T) {
	full := faas.Activation{}
	v := reflect.ValueOf(&full).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString(fmt.Sprintf("%q <&> \x00\u2028\u00e9 \\ %d\n", v.Type().Field(i).Name, i))
		case reflect.Int, reflect.Int64:
			f.SetInt(int64(i) * 1_000_000_007)
		case reflect.Uint8:
			f.SetUint(uint64(faas.Crashed))
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Struct, reflect.Slice, reflect.Pointer:
			if n := v.Type().Field(i).Name; n != "Timing" && n != "Logs" && n != "Code" && n != "Answer" && n != "Steps" && n != "Note" {
				t.Errorf("the field %s is not looked at", n)
			}
		default:
			t.Errorf("the field %s is not looked at", v.Type().Field(i).Name)
		}
	}
	full.Code = []faas.Tree{{Target: "/code", Digest: "sha256:\"1", Bytes: 7, From: faas.FromStore, US: 9}, {Target: "/deps", From: faas.FromNode}}
	full.Answer = &faas.Answer{Status: 201, Header: map[string][]string{"X\n": {"é", ""}}, Body: []byte("\xff\x00"), Bytes: 7, Cut: true}
	full.Note = json.RawMessage(`{"kind":"\u00e9"}`)
	full.Steps = []faas.SequenceStep{{ID: "1", Function: "a\"b", Outcome: faas.Crashed, Status: 404, US: 7, Kept: true}, {}}
	full.Timing.Begin = time.Now()
	full.Timing.Total = 12345 * time.Microsecond
	full.Timing.Add(faas.PhaseExecution, time.Millisecond)
	full.Timing.AddCPU(faas.PhaseExecution, time.Microsecond)
	full.Timing.Add(faas.PhaseQueue, 0)
	for _, a := range []faas.Activation{full, {}, *call(time.Now(), "f", faas.OK)} {
		want, err := json.Marshal(&a)
		if err != nil {
			t.Fatal(err)
		}
		var read, reference faas.Activation
		if err := json.Unmarshal(appendRecord(nil, &a), &read); err != nil {
			t.Fatalf("%v\n%s", err, appendRecord(nil, &a))
		}
		if err := json.Unmarshal(want, &reference); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(read, reference) {
			t.Errorf("read\n%+v, want\n%+v", read, reference)
		}
	}
}

// A message that is cut or changed anywhere is read as it was or refused, and nothing panics.
func TestDamagedChunks(t *testing.T) {
	var acts []*faas.Activation
	for i := range 50 {
		acts = append(acts, call(time.Now().Add(time.Duration(i)*time.Second), fmt.Sprint("f", i%3), faas.Code(i%2), "line"))
	}
	chunks, _, err := chunksOf(acts)
	if err != nil {
		t.Fatal(err)
	}
	message := beginMessage()
	for _, c := range chunks {
		message = c.append(message)
	}
	readAll := func(b []byte) (n int, err error) {
		chunks, err := chunksIn(b, 1)
		if err != nil {
			return 0, err
		}
		for _, c := range chunks {
			_, all, err := entries(c.head)
			if err != nil {
				return n, err
			}
			plain, err := unpacker.DecodeAll(c.data, nil)
			if err != nil {
				return n, err
			}
			for _, e := range all {
				if _, err := e.record(plain, true); err != nil {
					return n, err
				}
				n++
			}
		}
		return n, nil
	}
	if n, err := readAll(message); n != len(acts) || err != nil {
		t.Fatalf("read %d, %v; want %d", n, err, len(acts))
	}
	for range 2000 {
		b := append([]byte(nil), message...)
		b[rand.IntN(len(b))] ^= byte(1 + rand.IntN(255))
		_, _ = readAll(b[:len(b)-rand.IntN(2)*rand.IntN(len(b))])
	}
}

// A power cut may take the end of the stream, whose sequences are then given anew. What the index
// had of it stays, and what comes after it is kept too.
func TestStreamLosesItsEnd(t *testing.T) {
	dir, aside := t.TempDir(), t.TempDir()
	want := map[faas.ID]bool{}
	session := func() {
		e := openEngine(t, filepath.Join(dir, "stream"))
		j := openJournal(t, e, func(c *Config) { c.Dir = filepath.Join(dir, "index") })
		for range 5 {
			a := call(time.Now(), "f", faas.OK, "line")
			want[a.ID] = true
			j.Record(a)
			flush(t, j)
		}
		found, _, err := j.Find(t.Context(), Query{Namespace: "default", Limit: maxLimit})
		if err != nil || len(found) != len(want) {
			t.Errorf("%d found, %v; want %d", len(found), err, len(want))
		}
		for _, a := range found {
			if !want[a.ID] || texts(a.Logs) != "line" {
				t.Errorf("found %s with %d lines", a.ID, len(a.Logs))
			}
		}
		if err := errors.Join(j.Close(), e.Close()); err != nil {
			t.Fatal(err)
		}
	}
	session()
	if err := os.CopyFS(filepath.Join(aside, "stream"), os.DirFS(filepath.Join(dir, "stream"))); err != nil {
		t.Fatal(err)
	}
	session()
	if err := os.RemoveAll(filepath.Join(dir, "stream")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(aside, "stream"), filepath.Join(dir, "stream")); err != nil {
		t.Fatal(err)
	}
	session()
	session()
}
