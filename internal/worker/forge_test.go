package worker_test

import (
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
)

// forger has a thread that goes on writing after the answer what is to be taken for that of calls
// to come: frames on the connection, or text where its log is read.
const forger = `
import fcntl, os, struct, threading, time
ready = None
def frames(typ, payload):
    return b"".join(struct.pack(">IBI", len(payload) + 5, typ, stream) + payload for stream in range(1, 400, 2))
def frame(typ, payload):
    return struct.pack(">IBI", len(payload) + 5, typ, 0) + payload
meta = b'{"status":200}'
result = struct.pack(">I", len(meta)) + meta + b'"forged"'
def forge(fd, out):
    global ready
    while True:
        os.write(fd, out)
        ready = True
def main(args):
    harm = args.get("harm")
    if harm:
        if harm == "pipe":
            fcntl.fcntl(1, 1031, 1 << 20) # F_SETPIPE_SZ
        what = {"result": (3, frames(20, result)), "log": (3, frames(19, b"\1forged")), "loaded": (3, frame(17, b"{}")),
            "half": (3, frame(20, result)[:-4]), "line": (1, b"forged"), "pipe": (1, b"forged\n" * 9999)}[harm]
        threading.Thread(target=forge, args=what, daemon=True).start()
        while not ready:
            time.sleep(0.001)
    return "mine"
`

func TestWhatAProcessSaidBeforeItWasPutBackIsNoAnswerAfterwards(t *testing.T) {
	m := newMachine(t, nil)
	for _, reuse := range []faas.Reuse{faas.ReuseFunction, faas.ReuseTenant} {
		for _, harm := range []string{"result", "log", "loaded", "half", "line", "pipe"} {
			t.Run(string(reuse)+" "+harm, func(t *testing.T) {
				var revs []*faas.Revision
				for _, name := range []string{"a", "b"} {
					revs = append(revs, m.function(t, "python", "f.py", forger, func(r *faas.Revision) {
						r.Name.Function = string(reuse) + harm + name
						r.Reuse, r.State = reuse, faas.StatePristine
					}))
				}
				other := revs[1]
				if reuse == faas.ReuseFunction {
					other = revs[0]
				}
				again := 0
				for range 8 {
					before := call(`{"harm":"` + harm + `"}`)
					_, _ = m.do(revs[0], before) // fails, or answers for itself as it likes
					for range 2 {
						inv := call(`{}`)
						got, err := m.do(other, inv)
						if err != nil || got != "mine" {
							t.Fatalf("a call, started %q, gets %s, %v", inv.Report.Start, got, err)
						}
						for _, l := range inv.Report.Logs {
							if strings.Contains(l.Text, "forged") {
								t.Fatalf("a call, started %q, is said to have written %.40q", inv.Report.Start, l.Text)
							}
						}
						if inv.Report.Instance == before.Report.Instance {
							again++
						}
					}
				}
				t.Logf("%d calls met the process of the one that did harm", again)
			})
		}
	}
}
