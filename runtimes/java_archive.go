package runtimes

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Archive is a file of the classes that a runtime's own part has loaded, as its virtual machine keeps
// them in memory: a process that has it takes them from there and shares them with all others. It
// holds what comes with Brasa and with the runtime, and nothing of any function. One that is not there or
// does not fit costs time and nothing else.
//
// Its methods may be called at once.
type Archive struct {
	bootDir string
	key     string // of all that it is made of and for
	program []string
	boot    string
	// How the virtual machine is told to make one, to use it, to refuse to run without, and to look at
	// all of it.
	makes, uses, ext string
	strict           []string

	mu   sync.Mutex
	file string // in bootDir; empty: there is none
	why  error  // there is none; nil with an empty file: nobody has tried
}

// archiveDir is where a process that makes an archive writes it.
const archiveDir = "/out"

// oneStep is the first version that makes a cache of linked classes in one run. Older ones have
// archives on top of that of the JDK.
const oneStep = 25

// newArchive looks for the archive that fits a Java.
func newArchive(rt *Runtime, feature int, bootstrap []byte) *Archive {
	a := &Archive{bootDir: rt.bootDir, boot: rt.boot, makes: "-XX:ArchiveClassesAtExit=", uses: "-XX:SharedArchiveFile=", ext: ".jsa", strict: []string{"-Xshare:on"}}
	if feature >= oneStep {
		a.makes, a.uses, a.ext, a.strict = "-XX:AOTCacheOutput=", "-XX:AOTCache=", ".aot", []string{"-XX:AOTMode=on"}
	}
	a.strict = append(a.strict, "-XX:+VerifySharedSpaces")
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s\x00%q\x00%x\x00", rt.Program, rt.Version, rt.args, sha256.Sum256(bootstrap))
	home := filepath.Dir(filepath.Dir(rt.Program))
	for _, part := range []string{"lib/modules", "lib/server/libjvm.so", "release"} {
		if info, err := os.Stat(filepath.Join(home, part)); err == nil {
			fmt.Fprintf(h, "%s %d %d\x00", part, info.Size(), info.ModTime().UnixNano())
		}
	}
	a.key = hex.EncodeToString(h.Sum(nil))[:16]
	for _, arg := range rt.args {
		if !strings.HasPrefix(arg, "-Xlog") { // what went wrong is said
			a.program = append(a.program, arg)
		}
	}
	a.program = append([]string{rt.Program}, a.program...)
	found, _ := filepath.Glob(filepath.Join(a.bootDir, "classes-"+a.key+"-*"+a.ext)) // the pattern is well formed
	for _, f := range found {
		info, err := os.Stat(f)
		// One that was cut short would end the processes that map it.
		if err == nil && filepath.Base(f) == a.name(info.Size()) {
			a.file = filepath.Base(f)
		}
	}
	return a
}

func (a *Archive) name(size int64) string { return fmt.Sprintf("classes-%s-%d%s", a.key, size, a.ext) }

// flag is how a process is told of the archive; empty: it is to do without.
func (a *Archive) flag() string {
	if a == nil {
		return ""
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file == "" {
		return ""
	}
	return a.uses + BootDir + "/" + a.file
}

// State says whether there is an archive, and why there is none; neither if none was made so far.
func (a *Archive) State() (there bool, why error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.file != "", a.why
}

// Maker returns the command that makes an archive in a sandbox with the runtime's mounts, and the
// name of the file that it writes in target, a directory of its own.
func (a *Archive) Maker() (args []string, target, file string) {
	file = "classes" + a.ext
	args = append(args, a.program...)
	return append(args, fmt.Sprintf("-Xmx%dm", javaHeap(faas.DefaultLimits().Memory)), "-Dbrasa.archive=true", "-Dbrasa.rehearse=true",
		a.makes+archiveDir+"/"+file, "-jar", BootDir+"/"+a.boot), archiveDir, file
}

// Checker returns the command that fails where the archive does not fit, and says why; nil: there is none.
func (a *Archive) Checker() []string {
	uses := a.flag()
	if uses == "" {
		return nil
	}
	args := append(append([]string{}, a.program...), a.strict...)
	return append(args, fmt.Sprintf("-Xmx%dm", javaHeap(faas.DefaultLimits().Memory)), "-Dbrasa.archive=true", uses, "-jar", BootDir+"/"+a.boot)
}

// Keep has the processes to come use an archive that was made, and removes those before it.
func (a *Archive) Keep(made *os.File) error {
	info, err := made.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() == 0 {
		return errors.New("no archive was written")
	}
	name := a.name(info.Size())
	tmp := filepath.Join(a.bootDir, "."+name+".new")
	if err := copyFile(tmp, made); err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	if err := os.Rename(tmp, filepath.Join(a.bootDir, name)); err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.file, a.why = name, nil
	old, _ := filepath.Glob(filepath.Join(a.bootDir, "classes-*"))
	for _, f := range old {
		if filepath.Base(f) != name {
			err = errors.Join(err, os.Remove(f)) // who has mapped it keeps it
		}
	}
	return err
}

// Drop has the processes to come do without an archive, for a reason, and removes it.
func (a *Archive) Drop(why error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file != "" {
		if err := os.Remove(filepath.Join(a.bootDir, a.file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			why = errors.Join(why, err)
		}
	}
	a.file, a.why = "", why
}

func copyFile(to string, from *os.File) error {
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.ReadFrom(from)
	return errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
}

// unpackSettled unpacks a bootstrap whose time is the same at every start of the server: an archive is
// for the file of that time.
func unpackSettled(dir, name string, content []byte) error {
	file, when := filepath.Join(dir, name), time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	if info, err := os.Stat(file); err == nil && info.ModTime().Equal(when) {
		if there, err := os.ReadFile(file); err == nil && bytes.Equal(there, content) {
			return nil
		}
	}
	if err := unpack(dir, name, content); err != nil {
		return err
	}
	return os.Chtimes(file, when, when)
}
