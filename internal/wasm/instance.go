package wasm

import (
	"context"
	"fmt"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

// instance is one instantiation of the module: nothing ran in it yet, or one call does.
type instance struct {
	box    *box
	config wazero.ModuleConfig
	mod    api.Module // nil: not yet made, because its making runs its code
	entry  api.Function
}

// maxSpare is how many instances are kept ahead of need, at most. They are made as fast as calls
// take them, or nearly so.
const maxSpare = 8

// pool makes instances.
type pool struct {
	loaded *loaded
	limits *limits
	config wazero.ModuleConfig
	size   uint64 // of a slot

	ready chan *instance
	used  chan *slot
	wake  chan struct{}

	mu    sync.Mutex
	slots []*slot // zero, guarded by mu
}

func newPool(l *loaded, name string, lim *limits, spare int) *pool {
	p := &pool{
		loaded: l, limits: lim, config: l.config(name), size: lim.memory / pageSize * pageSize,
		ready: make(chan *instance, spare), used: make(chan *slot, 64), wake: make(chan struct{}, 1),
	}
	go p.fill()
	return p
}

// fill keeps instances ready, and makes slots zero again, while nobody waits for either.
func (p *pool) fill() {
	for {
		for range len(p.used) {
			p.clean(<-p.used)
		}
		if len(p.ready) < cap(p.ready) {
			in, err := p.make()
			if err == nil {
				p.ready <- in // the only sender
				continue
			}
			// Whoever needs one makes it and hears why that fails.
		}
		select {
		case s := <-p.used:
			p.clean(s)
		case <-p.wake:
		}
	}
}

func (p *pool) clean(s *slot) {
	if s.zero() != nil {
		s.drop()
		return
	}
	s.most = p.size
	p.mu.Lock()
	p.slots = append(p.slots, s)
	p.mu.Unlock()
}

// take returns an instance that nobody has used.
func (p *pool) take() (*instance, error) {
	select {
	case in := <-p.ready:
		select {
		case p.wake <- struct{}{}:
		default:
		}
		return in, nil
	default:
		return p.make()
	}
}

func (p *pool) slot() (*slot, error) {
	p.mu.Lock()
	if n := len(p.slots); n > 0 {
		s := p.slots[n-1]
		p.slots = p.slots[:n-1]
		p.mu.Unlock()
		return s, nil
	}
	p.mu.Unlock()
	return newSlot(p.size)
}

func (p *pool) make() (*instance, error) {
	s, err := p.slot()
	if err != nil {
		return nil, err
	}
	b := &box{slot: s}
	in := &instance{box: b, config: p.config.WithStdin(stdin{b}).WithStdout(stdout{b}).WithStderr(stderr{b}).WithNanosleep(b.sleep)}
	if p.loaded.starts {
		return in, nil
	}
	if err := in.make(context.Background(), p.loaded); err != nil {
		s.drop()
		return nil, err
	}
	return in, nil
}

// make instantiates the module. ctx is the call's where the module has code that runs now.
func (in *instance) make(ctx context.Context, l *loaded) error {
	mod, err := l.engine.runtime.InstantiateModule(experimental.WithMemoryAllocator(ctx, in.box.slot), l.compiled, in.config)
	if err != nil {
		return fmt.Errorf("instantiate module: %w", err)
	}
	in.mod = mod
	if l.how == command {
		in.entry = mod.ExportedFunction("_start")
	}
	return nil
}

// done throws the instance away. Nothing of it may run any more.
func (p *pool) done(in *instance) {
	if in.mod != nil {
		_ = in.mod.Close(context.Background()) // it has no resources whose closing can fail
	}
	in.box.call = nil
	select {
	case p.used <- in.box.slot:
	default:
		p.clean(in.box.slot)
	}
}
