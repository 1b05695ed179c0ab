package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// lease says, on disk, what of this server's would outlive a kill -9: processes end with the
// spawner, but cgroups, and perhaps the packet filter's table and the forwarding switch, stay.
// The file is locked while the server lives.
type lease struct {
	cfg  Config
	file *os.File
	name net.Listener // an abstract socket: one server per prefix; it goes with the process
	held leaseState
}

type leaseState struct {
	Prefix     string   `json:"prefix"`
	Cgroups    []string `json:"cgroups"`    // directories that hold our groups
	Forwarding bool     `json:"forwarding"` // we switched IPv4 forwarding on
	Network    bool     `json:"network"`    // there may be interfaces and a table
}

func takeLease(cfg Config) (*lease, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make sandbox directory: %w", err)
	}
	path := filepath.Join(cfg.Dir, "lease.json")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lease: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %s: another server uses this directory: %w", path, err)
	}
	l := &lease{cfg: cfg, file: file}
	if l.name, err = takeName(cfg.Prefix); err != nil {
		file.Close()
		return nil, fmt.Errorf("another server on this machine uses the prefix %q: %w", cfg.Prefix, err)
	}
	text, err := io.ReadAll(file)
	if err != nil {
		l.release()
		return nil, fmt.Errorf("read lease: %w", err)
	}
	if len(text) > 0 {
		// A torn write is as good as none: what follows from the prefix is cleaned anyway.
		_ = json.Unmarshal(text, &l.held)
	}
	return l, nil
}

// cleanUp removes what the last holder left.
func (l *lease) cleanUp(log *slog.Logger) error {
	before, done := l.otherName()
	defer done()
	dirs := l.held.Cgroups
	if layout, err := lookCgroups(ownCgroups(), l.cfg.Prefix); err == nil {
		dirs = append(dirs, layout.dirs()...)
	}
	var errs []error
	for _, d := range dirs {
		// The lease is a file: believe it only as far as it names directories of ours.
		if base := filepath.Base(d); base != l.cfg.Prefix && (before == "" || base != before) || !strings.HasPrefix(d, "/sys/fs/cgroup/") {
			continue
		}
		if _, err := os.Stat(d); err != nil {
			continue
		}
		log.Info("removing cgroups of a server that died", "dir", d)
		errs = append(errs, emptyGroups(d), removeGroup(d))
	}
	if l.held.Network {
		errs = append(errs, removeNetwork(l.cfg.Prefix))
		if before != "" {
			errs = append(errs, removeNetwork(before))
		}
	}
	if l.held.Forwarding {
		errs = append(errs, setForwarding(false))
	}
	l.held = leaseState{Prefix: l.cfg.Prefix}
	errs = append(errs, l.save())
	return errors.Join(errs...)
}

// otherName returns the last holder's prefix if that was another than ours and no other server has it
// now, which is seen to until done.
func (l *lease) otherName() (prefix string, done func()) {
	if l.held.Prefix == l.cfg.Prefix || !prefixForm.MatchString(l.held.Prefix) {
		return "", func() {}
	}
	name, err := takeName(l.held.Prefix)
	if err != nil {
		return "", func() {}
	}
	return l.held.Prefix, func() { name.Close() }
}

// takeName takes a prefix for this process.
func takeName(prefix string) (net.Listener, error) {
	return net.Listen("unix", fmt.Sprintf("@%s-sandbox-%d", prefix, hostUser("/proc/self/uid_map", os.Getuid())))
}

// write notes the cgroups before the first is made.
func (l *lease) write(layout *cgroupLayout) error {
	if layout != nil {
		l.held.Cgroups = layout.dirs()
	}
	return l.save()
}

func (l *lease) save() error {
	text, err := json.Marshal(l.held)
	if err != nil {
		return err
	}
	if err := l.file.Truncate(0); err != nil {
		return fmt.Errorf("write lease: %w", err)
	}
	if _, err := l.file.WriteAt(text, 0); err != nil {
		return fmt.Errorf("write lease: %w", err)
	}
	return nil
}

// release gives the lease back; what it named is gone by then.
func (l *lease) release() error {
	l.name.Close()
	if err := l.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
