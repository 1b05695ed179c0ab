package daemon

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/faas"
)

// TestHostileFunctionsHarmNobodyElse runs programs that try to take the machine down, one after
// the other, while a neighbour is called all the time: each ends as the failure it is, with the
// limit named, and every call of the neighbour is answered.
func TestHostileFunctionsHarmNobodyElse(t *testing.T) {
	needSandboxes(t)
	v := startVictim(t, t.TempDir(), "")
	public := true
	if _, err := v.client.Deploy(t.Context(), "default", "neighbour", api.Spec{Public: &public}, api.Code{Filename: "n.py", Reader: strings.NewReader("def main(args):\n    return args['n']\n")}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var calling sync.WaitGroup
	calls := 0
	calling.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			r, err := v.client.Invoke(context.Background(), "default", "neighbour", api.CallOptions{}, strings.NewReader(fmt.Sprintf(`{"n": %d}`, n)))
			if err != nil {
				t.Errorf("the neighbour's call %d: %v", n, err)
				return
			}
			if got := string(r.Result); got != fmt.Sprint(n) {
				t.Errorf("the neighbour's call %d got %s", n, got)
			}
			calls++
		}
	})
	defer func() {
		stop()
		calling.Wait()
		if calls < 10 {
			t.Errorf("the neighbour was called %d times only", calls)
		}
	}()

	second := faas.Duration(time.Second)
	for _, a := range []struct {
		name, code string
		limits     faas.Limits
		want       []faas.Code // any of them
		limit      string
	}{
		{"endless loop", "def main(args):\n    while True: pass\n", faas.Limits{Timeout: second}, []faas.Code{faas.Timeout}, "timeout_ms"},
		{"memory bomb", "def main(args):\n    x = []\n    while True: x.append(bytearray(1 << 20))\n", faas.Limits{Memory: 64 * faas.MiB}, []faas.Code{faas.Crashed}, "memory_bytes"},
		{"mapped memory", "import mmap\ndef main(args):\n    x = []\n    while True:\n        m = mmap.mmap(-1, 64 << 20); m.write(b'x' * (64 << 20)); x.append(m)\n", faas.Limits{Memory: 64 * faas.MiB}, []faas.Code{faas.Crashed}, "memory_bytes"},
		{"shared memory", "def main(args):\n    with open('/dev/shm/x', 'wb') as f:\n        while True: f.write(b'x' * (1 << 20))\n", faas.Limits{Memory: 64 * faas.MiB}, []faas.Code{faas.Failed, faas.Crashed}, ""},
		{"full tmp", "def main(args):\n    with open('/tmp/x', 'wb') as f:\n        while True: f.write(b'x' * (1 << 20))\n", faas.Limits{Tmp: 4 * faas.MiB}, []faas.Code{faas.Failed}, ""},
		{"many files", "def main(args):\n    for i in range(10_000_000): open(f'/tmp/{i}', 'w').close()\n", faas.Limits{Tmp: 4 * faas.MiB, Timeout: faas.Duration(20 * time.Second)}, []faas.Code{faas.Failed}, ""},
		{"fork bomb", "import os, time\ndef main(args):\n    while True:\n        try:\n            if os.fork() == 0: time.sleep(60)\n        except OSError: pass\n", faas.Limits{PIDs: 32, Timeout: second}, []faas.Code{faas.Timeout}, "timeout_ms"},
		{"thread bomb", "import threading, time\ndef main(args):\n    while True: threading.Thread(target=time.sleep, args=(60,)).start()\n", faas.Limits{PIDs: 32}, []faas.Code{faas.Failed}, ""},
		{"descriptors", "def main(args):\n    x = []\n    while True: x.append(open('/dev/null'))\n", faas.Limits{}, []faas.Code{faas.Failed}, ""},
		{"log flood", "def main(args):\n    while True: print('x' * 1000)\n", faas.Limits{Timeout: second, Log: 64 * faas.KiB}, []faas.Code{faas.Timeout}, "timeout_ms"},
		{"endless line", "import sys\ndef main(args):\n    while True: sys.stdout.write('x' * 100000)\n", faas.Limits{Timeout: second, Log: 64 * faas.KiB}, []faas.Code{faas.Timeout}, "timeout_ms"},
		{"raw log flood", "import os\ndef main(args):\n    while True: os.write(1, b'x' * 100000)\n", faas.Limits{Timeout: second, Log: 64 * faas.KiB}, []faas.Code{faas.Timeout}, "timeout_ms"},
		{"answer over the limit", "def main(args):\n    return 'x' * (10 << 20)\n", faas.Limits{Response: faas.MiB}, []faas.Code{faas.Failed}, "response_bytes"},
		{"endless answer", "def main(args):\n    while True: yield 'x' * 100000\n", faas.Limits{Response: faas.MiB}, []faas.Code{faas.Failed}, "response_bytes"},
		{"kill everything", "import os, signal\ndef main(args):\n    \n    try: os.kill(-1, signal.SIGKILL)\n    except OSError: pass\n    os.kill(os.getpid(), signal.SIGKILL)\n", faas.Limits{}, []faas.Code{faas.Crashed}, ""},
		{"stop itself", "import os, signal\ndef main(args):\n    os.kill(os.getpid(), signal.SIGSTOP)\n", faas.Limits{Timeout: second}, []faas.Code{faas.Timeout}, "timeout_ms"},
		{"junk on the socket", "import os\ndef main(args):\n    os.write(3, b'\\xff' * 1000)\n", faas.Limits{}, []faas.Code{faas.Crashed}, ""},
		{"close everything", "import os\ndef main(args):\n    os.closerange(0, 1024)\n", faas.Limits{Timeout: faas.Duration(5 * time.Second)}, []faas.Code{faas.Crashed, faas.Failed}, ""},
		{"exit without answer", "import os\ndef main(args):\n    os._exit(0)\n", faas.Limits{}, []faas.Code{faas.Crashed}, ""},
		{"recursion", "def main(args):\n    return main(args)\n", faas.Limits{}, []faas.Code{faas.Failed, faas.Crashed}, ""},
		{"not JSON", "def main(args):\n    return float('nan')\n", faas.Limits{}, []faas.Code{faas.Failed}, ""},
	} {
		t.Run(a.name, func(t *testing.T) {
			_, err := v.client.Run(t.Context(), "default", api.Spec{Language: "python", Limits: &a.limits},
				api.Code{Filename: "f.py", Reader: strings.NewReader(a.code)}, api.CallOptions{}, strings.NewReader("{}"))
			e := faas.AsError(err)
			if e == nil {
				t.Fatal("it succeeded")
			}
			ok := false
			for _, c := range a.want {
				ok = ok || e.Code == c
			}
			if !ok || e.Limit != a.limit {
				t.Errorf("%v: %v (limit %q), want one of %v, limit %q", e.Code, e, e.Limit, a.want, a.limit)
			}
			if len(e.Error()) > 4096 {
				t.Errorf("the error has %d bytes", len(e.Error()))
			}
		})
	}

	t.Run("log is cut and marked", func(t *testing.T) {
		list, err := v.client.Activations(t.Context(), "default", api.Query{Limit: 100, Outcome: "timeout"})
		if err != nil {
			t.Fatal(err)
		}
		cut := 0
		for _, short := range list.Activations {
			a, err := v.client.Activation(t.Context(), "default", string(short.ID))
			if err != nil {
				t.Fatal(err)
			}
			size := 0
			for _, l := range a.Logs {
				size += len(l.Text)
			}
			if n := len(a.Logs); n > 0 && a.Logs[n-1].Stream == "platform" && strings.Contains(a.Logs[n-1].Text, "log_bytes") {
				cut++
			}
			if size > 64<<10+1000 {
				t.Errorf("%d bytes of log are kept", size)
			}
		}
		if cut < 3 {
			t.Errorf("%d logs say that they were cut, want those of the three floods", cut)
		}
	})

	t.Run("callers that go away", func(t *testing.T) {
		if _, err := v.client.Deploy(t.Context(), "default", "slow", api.Spec{Public: &public, Limits: &faas.Limits{MaxInstances: 2}},
			api.Code{Filename: "s.py", Reader: strings.NewReader("import time\ndef main(args):\n    time.sleep(float(args.get('s', 0)))\n    return 'ok'\n")}); err != nil {
			t.Fatal(err)
		}
		url := v.client.Server() + "/f/default/slow/?s=60"
		for range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := http.DefaultClient.Do(req)
			if err == nil {
				_ = res.Body.Close()
				t.Error("answered in time")
			}
			cancel()
		}
		// Their slots are free again: with two instances at most, a new call is served at once.
		r, err := v.client.Invoke(t.Context(), "default", "slow", api.CallOptions{}, strings.NewReader("{}"))
		if err != nil || string(r.Result) != `"ok"` {
			t.Errorf("the next call: %v, %v", r, err)
		}
	})

	t.Run("strangers are not told a function's own words", func(t *testing.T) {
		if _, err := v.client.Deploy(t.Context(), "default", "telling", api.Spec{Public: &public},
			api.Code{Filename: "t.py", Reader: strings.NewReader("def main(args):\n    raise ValueError('inner detail')  # and this line\n")}); err != nil {
			t.Fatal(err)
		}
		res, err := http.Post(v.client.Server()+"/f/default/telling/", "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != http.StatusBadGateway || strings.Contains(string(b), "inner detail") || strings.Contains(string(b), "and this line") {
			t.Errorf("without a key: %d %s; want a failure and nothing of the code", res.StatusCode, b)
		}
		_, err = v.client.Invoke(t.Context(), "default", "telling", api.CallOptions{}, strings.NewReader("{}"))
		if e := faas.AsError(err); e == nil || !strings.Contains(e.Error(), "inner detail") || e.Trace == "" {
			t.Errorf("with a key: %v; want the message and the trace", err)
		}
	})

	t.Run("malformed chunks", func(t *testing.T) {
		conn, err := net.Dial("tcp", strings.TrimPrefix(v.client.Server(), "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "POST /f/default/neighbour/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		status, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.Contains(status, " 400 ") {
			t.Errorf("%q, %v; want 400, for it is the caller's mistake", status, err)
		}
	})

	t.Run("malformed requests", func(t *testing.T) {
		for _, c := range []struct {
			body, contentType string
			status            int
		}{
			{"{not json", "application/json", http.StatusBadRequest},
			{strings.Repeat("[", 60_000), "application/json", http.StatusBadRequest},
			{strings.Repeat("x", 9<<20), "text/plain", http.StatusRequestEntityTooLarge},
		} {
			res, err := http.Post(v.client.Server()+"/f/default/neighbour/", c.contentType, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if res.StatusCode != c.status {
				t.Errorf("%.10s… of %d bytes: status %d, want %d: %.300s", c.body, len(c.body), res.StatusCode, c.status, b)
			}
		}
	})
}
