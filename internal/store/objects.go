package store

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// Object says what is known of one object without reading it.
type Object struct {
	Name     string
	Size     int64
	Modified time.Time // when it was put
}

// Objects keeps bytes of any length by name. It is safe for concurrent use. An object is there
// as a whole or not at all, whatever dies while it is put.
type Objects interface {
	// Put stores all of r under name, in place of what was there. It returns when that is on the
	// disk. If r or the store fails, what was there stays.
	Put(ctx context.Context, name string, r io.Reader) (int64, error)
	// Get opens the object, or returns ErrNotFound. The last Read returns ErrCorrupt in place of
	// io.EOF if the bytes are not those that were put. The caller closes it.
	Get(ctx context.Context, name string) (io.ReadCloser, error)
	// Stat says what is known of the object, or returns ErrNotFound.
	Stat(ctx context.Context, name string) (Object, error)
	// Delete removes the object; a name without one is not an error.
	Delete(ctx context.Context, name string) error
	// List returns all objects in the order of their names.
	List(ctx context.Context) ([]Object, error)
}

// MemoryObjects returns Objects that live in this process's memory and are gone with it.
func MemoryObjects() Objects { return &memoryObjects{objects: map[string]memoryObject{}} }

type memoryObjects struct {
	mu      sync.Mutex
	objects map[string]memoryObject // guarded by mu
}

type memoryObject struct {
	Object
	data []byte // never changed
}

func (m *memoryObjects) Put(ctx context.Context, name string, r io.Reader) (int64, error) {
	if name == "" {
		return 0, fmt.Errorf("put object: %w: empty name", ErrKey)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return 0, fmt.Errorf("put object %q: %w", name, err)
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.objects[name] = memoryObject{Object{name, int64(len(data)), time.Now()}, data}
	return int64(len(data)), nil
}

func (m *memoryObjects) Get(_ context.Context, name string) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.objects[name]
	if !ok {
		return nil, fmt.Errorf("object %q: %w", name, ErrNotFound)
	}
	return io.NopCloser(bytes.NewReader(o.data)), nil
}

func (m *memoryObjects) Stat(_ context.Context, name string) (Object, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.objects[name]
	if !ok {
		return Object{}, fmt.Errorf("object %q: %w", name, ErrNotFound)
	}
	return o.Object, nil
}

func (m *memoryObjects) Delete(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, name)
	return nil
}

func (m *memoryObjects) List(context.Context) ([]Object, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Object, 0, len(m.objects))
	for _, o := range m.objects {
		out = append(out, o.Object)
	}
	sortObjects(out)
	return out, nil
}

func sortObjects(objects []Object) {
	slices.SortFunc(objects, func(a, b Object) int { return strings.Compare(a.Name, b.Name) })
}
