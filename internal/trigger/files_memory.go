package trigger

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"sync"
	"syscall"
)

// version is a file with a content: one that was written anew is another.
type version struct {
	rel   string // its path below the directory
	inode uint64
	mtime int64 // nanoseconds
	size  int64
}

func versionOf(rel string, info fs.FileInfo) version {
	v := version{rel: rel, mtime: info.ModTime().UnixNano(), size: info.Size()}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		v.inode = s.Ino
	}
	return v
}

// id is the ID of the event that tells of it.
func (v version) id() string { return fmt.Sprintf("%s@%d.%d.%d", v.rel, v.inode, v.mtime, v.size) }

func (v version) mark() uint64 {
	sum := sha256.Sum256([]byte(v.id()))
	return binary.BigEndian.Uint64(sum[:])
}

// fileMemory is what a source remembers: the versions that stay where they are and are not to be
// told of again. It is safe for concurrent use.
type fileMemory struct {
	mu    sync.Mutex
	of    string         // which files it is about
	marks map[uint64]int // guarded by mu; by which look at the directory they were seen last
	look  int            // guarded by mu; how many looks there were
	dirty bool           // guarded by mu; it is not saved
}

type fileMemoryJSON struct {
	Of    string `json:"of"`
	Marks []byte `json:"marks"` // eight bytes each
}

// load reads what was saved; false if it is about no directory or another.
func (m *fileMemory) load(ctx context.Context, s State, of string) (bool, error) {
	m.of, m.marks = of, map[uint64]int{}
	b, err := s.Get(ctx)
	if err != nil || b == nil {
		return false, err
	}
	var saved fileMemoryJSON
	if err := json.Unmarshal(b, &saved); err != nil {
		return false, err
	}
	if saved.Of != of {
		return false, nil
	}
	for b := saved.Marks; len(b) >= 8; b = b[8:] {
		m.marks[binary.BigEndian.Uint64(b)] = 0
	}
	return true, nil
}

// save writes it if it has changed.
func (m *fileMemory) save(ctx context.Context, s State) error {
	m.mu.Lock()
	if !m.dirty {
		m.mu.Unlock()
		return nil
	}
	m.dirty = false
	saved := fileMemoryJSON{Of: m.of, Marks: make([]byte, 0, 8*len(m.marks))}
	for mark := range m.marks {
		saved.Marks = binary.BigEndian.AppendUint64(saved.Marks, mark)
	}
	m.mu.Unlock()
	b, err := json.Marshal(saved)
	if err == nil {
		err = s.Put(ctx, b)
	}
	if err != nil {
		m.mu.Lock()
		m.dirty = true
		m.mu.Unlock()
		return fmt.Errorf("save which files were told of: %w", err)
	}
	return nil
}

func (m *fileMemory) add(v version) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.marks[v.mark()] = m.look
	m.dirty = true
}

// has says whether a version is remembered, which is seen now.
func (m *fileMemory) has(v version) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	mark := v.mark()
	_, ok := m.marks[mark]
	if ok {
		m.marks[mark] = m.look
	}
	return ok
}

// begin begins a look at the whole directory.
func (m *fileMemory) begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.look++
}

// end forgets what this look has not seen.
func (m *fileMemory) end() (left int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for mark, look := range m.marks {
		if look < m.look {
			delete(m.marks, mark)
			m.dirty = true
		}
	}
	return len(m.marks)
}
