package runtimes

import (
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// What an instance says before it is put back answers no call that comes after, whoever reads at
// that moment.
func TestNothingSaidBeforeARewindAnswersACallAfterIt(t *testing.T) {
	c, h := play(t, Options{})
	if err := c.Begin(Spec{}); err != nil {
		t.Fatal(err)
	}
	h.next()
	h.send(frameLoaded, 0, []byte(`{}`))
	for i := range 120 {
		own := fmt.Sprintf(`"%d"`, i)
		var served sync.WaitGroup
		served.Go(func() {
			_, stream, _ := h.next()
			h.answer(stream, `{"status":200}`, own)
			for later := stream + 2; later < stream+40; later += 2 {
				h.answer(later, `{"status":200}`, `"forged"`)
				h.send(frameLog, later, []byte("\x01forged\n"))
			}
		})
		inv := invocation("")
		res, err := c.RoundTrip(t.Context(), inv, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(res.Body); string(b) != own {
			t.Fatalf("call %d gets %s", i, b)
		}
		if i%8 == 0 { // till a keeper reads, or is about to
			time.Sleep(restTime + time.Duration(rand.IntN(2000)-1000)*time.Microsecond)
		}
		served.Wait()
		if err := c.Silent(); err != nil {
			t.Fatal(err)
		}
		if err := c.Rewound(); err != nil {
			t.Fatal(err)
		}
		if i%16 == 0 {
			time.Sleep(2 * restTime) // a keeper reads from the start of the next
		}
	}
}

// An instance that was put back in the midst of a frame would have the rest of it read into its
// next words.
func TestAnInstancePutBackInTheMidstOfAFrameIsLost(t *testing.T) {
	for _, idle := range []time.Duration{0, 3 * restTime} {
		c, h := play(t, Options{})
		go func() {
			_, stream, _ := h.next()
			h.answer(stream, `{"status":200}`, `1`)
		}()
		if _, err := c.RoundTrip(t.Context(), invocation(""), nil); err != nil {
			t.Fatal(err)
		}
		half := appendFrame(nil, frameResult, 3, metaPayload(`{"status":200}`, `2`))
		_, _ = h.Write(half[:len(half)-3])
		time.Sleep(idle)
		if err := c.Rewound(); !BrokeProtocol(err) {
			t.Errorf("after %v: Rewound = %v, want a breach of the protocol", idle, err)
		}
		if _, err := c.RoundTrip(t.Context(), invocation(""), nil); err == nil {
			t.Error("it is given a call all the same")
		}
	}
}

// A body that is still on its way would be read by what the process is then.
func TestAnInstanceThatIsStillToldSomethingIsNotSilent(t *testing.T) {
	c, h := play(t, Options{})
	go func() {
		_, stream, _ := h.next()
		h.answer(stream, `{"status":200}`, `1`) // and leaves the body where it is
	}()
	body, w := io.Pipe()
	defer w.Close()
	inv := invocation("")
	inv.Body, inv.Length = body, -1
	if _, err := c.RoundTrip(t.Context(), inv, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Silent(); err == nil {
		t.Error("it counts as silent while a body is being sent")
	}
}
