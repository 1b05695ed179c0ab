package sandbox

import (
	"context"
	"errors"
	"time"
)

// trySpawner finds out whether the embedded spawner runs here: that it may be executed is only
// known when it was. If not, this binary stands in.
func (h *Host) trySpawner() error {
	if h.standIn {
		return nil
	}
	s, err := startSpawner(h.root, 0, h.nestLayout())
	if err == nil {
		n, err := s.nests.take(context.Background()) // makes one at once
		if err == nil {
			s.nests.destroy(n)
		}
		s.close()
		return err // a refusal of the kernel's, which a stand-in would meet as well
	}
	if h.rootless {
		return err
	}
	h.log.Warn("the embedded spawner does not run here; sandboxes start ten times slower", "err", err)
	h.standIn = true
	return nil
}

func (h *Host) nestLayout() nestLayout {
	return nestLayout{inProcess: h.standIn, rootless: h.rootless, masks: h.masks}
}

// keepSpawner keeps one spawner alive. The first attempt's outcome goes to started.
func (h *Host) keepSpawner(ctx context.Context, index int, started chan<- error) {
	first := true
	for {
		begin := time.Now()
		s, err := startSpawner(h.root, (h.cfg.NestPool+h.cfg.Spawners-1)/h.cfg.Spawners, h.nestLayout())
		if first {
			started <- err
			first = false
			if err != nil {
				return
			}
		}
		if err == nil {
			h.setSpawner(index, s)
			h.attend(ctx, s)
			if ctx.Err() != nil {
				return
			}
			h.setSpawner(index, nil)
			err = errSpawnerGone
		}
		h.log.Error("spawner ended; its sandboxes are dead, another is started", "spawner", index, "err", err)
		if time.Since(begin) < time.Second {
			select { // whatever ends it at once would do so for ever
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return
			}
		}
	}
}

// attend keeps a spawner's nests filled until it dies, or ends it when ctx does.
func (h *Host) attend(ctx context.Context, s *spawner) {
	filling, cancel := context.WithCancel(ctx)
	filled := make(chan struct{})
	go func() { defer close(filled); s.nests.fill(filling, h.log) }()
	select {
	case <-s.gone:
	case <-ctx.Done():
		s.close()
	}
	cancel()
	<-filled
	s.nests.drain()
}

func (h *Host) setSpawner(index int, s *spawner) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.spawners[index] = s
	close(h.changed)
	h.changed = make(chan struct{})
}

// pick returns a spawner, in turn; it waits while all are being restarted.
func (h *Host) pick(ctx context.Context) (*spawner, error) {
	for {
		h.mu.Lock()
		for range h.spawners {
			h.turn = (h.turn + 1) % len(h.spawners)
			if s := h.spawners[h.turn]; s != nil {
				h.mu.Unlock()
				return s, nil
			}
		}
		changed := h.changed
		h.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// pickFor returns the spawner for a program: any, or that of its zygote.
func (h *Host) pickFor(ctx context.Context, spec *Spec) (*spawner, error) {
	z := spec.Zygote
	if z == nil {
		return h.pick(ctx)
	}
	if z.host != h {
		return nil, errors.New("the zygote is another host's")
	}
	select {
	case <-z.done:
		return nil, errZygoteGone
	default:
		return z.spawner, nil
	}
}
