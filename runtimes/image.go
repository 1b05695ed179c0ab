package runtimes

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Image is an unpacked image and what it says of how it is run.
type Image struct {
	Root       string // path of its root directory on this host; its links are followed as if it were /
	Entrypoint []string
	Command    []string // what Entrypoint is called with, or the command where that is empty
	Env        []string
	Dir        string
	Labels     map[string]string
	Port       int   // where its server would listen
	Ports      []int // that it says it listens on
}

const imageOp = "look at image"

// imagePath is where programs of an image are looked for that does not say it.
const imagePath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// PlanImage finds out how an image is run: what its program is, whether that can run here, and how
// one talks to it. code is what is mounted beside it, nil if nothing is. As with docker run, a
// command takes the place of the image's Cmd, and an entry that of its Entrypoint and Cmd.
func (r *Registry) PlanImage(img *Image, code fs.FS, h Hints) (Plan, error) {
	p := Plan{}
	if code != nil {
		m, err := readManifest(code)
		if err != nil {
			return p, err
		}
		p.Env, p.Secrets, p.Limits, p.Network = m.Env, m.Secrets, m.Limits, m.Network
		h.Language, h.Entry, h.Handler = orElse(h.Language, m.Language), orElse(h.Entry, m.Entry), orElse(h.Handler, m.Handler)
		if len(h.Command) == 0 {
			h.Command = m.Command
		}
	}
	root, err := openImage(img.Root)
	if err != nil {
		return p, err
	}
	defer root.close()
	p.Handler, p.Command = h.Handler, imageCommand(img, h)
	if err := p.imageLanguage(img, h); err != nil {
		return p, err
	}
	if _, err := r.Lookup(p.Runtime); err != nil {
		return p, err
	}
	if len(p.Command) == 0 {
		return p, faas.Errorf(faas.Invalid, imageOp, "the image names no program: it has neither an entrypoint nor a command").
			WithFix("say what is run with --command")
	}
	p.Command[0], err = root.program(p.Command[0], imageDir(root, img), lastVariable(img.Env, "PATH"))
	return p, err
}

// imageCommand is the command that the image is run with.
func imageCommand(img *Image, h Hints) []string {
	switch {
	case h.Entry != "":
		return append([]string{h.Entry}, h.Command...)
	case len(h.Command) > 0:
		return slices.Concat(img.Entrypoint, h.Command)
	}
	return slices.Concat(img.Entrypoint, img.Command)
}

// imageLanguage decides how one talks to the image's program.
func (p *Plan) imageLanguage(img *Image, h Hints) error {
	if a, ok := aliases[strings.ToLower(h.Language)]; ok {
		h.Language = a
	}
	if h.Language != "" {
		p.Runtime, p.Why = strings.ToLower(h.Language), "the language is given"
		switch {
		case slices.Contains(imageLanguages, p.Runtime):
			return nil
		case styleOf(p.Runtime) == StyleFrames && slices.ContainsFunc(names, func(n language) bool { return n.name == p.Runtime }):
			return faas.Errorf(faas.Invalid, imageOp, "functions in %s are run by this server's own %s, not by one of an image", p.Runtime, p.Runtime).
				WithFix("deploy the code without --image, or make a server of it: one of --language %s", strings.Join(imageLanguages, ", "))
		}
		return faas.Errorf(faas.Invalid, imageOp, "an image is not run as %q, but as one of %s", clip(h.Language), strings.Join(imageLanguages, ", "))
	}
	p.Runtime, p.Why = guessImage(img, p.Command, len(h.Command) > 0 || h.Entry != "")
	return nil
}

// imageLanguages are the ways to talk to the program of an image.
var imageLanguages = []string{HTTPServer, Executable, JSONLines, OpenWhisk, OpenFaaS, Lambda}

// labelLanguage is where an image may say it itself.
const labelLanguage = "dev.brasa.language"

// guessImage tells by what an image says of itself how one talks to its program. own says that the
// person has said what is run.
func guessImage(img *Image, command []string, own bool) (language, why string) {
	variable := func(name string) bool { return lastVariable(img.Env, name) != "" }
	base := ""
	if len(command) > 0 {
		base = path.Base(command[0])
	}
	line := strings.Join(command, " ")
	if l := img.Labels[labelLanguage]; slices.Contains(imageLanguages, l) {
		return l, "the image's label " + labelLanguage + " says so"
	}
	for _, c := range []struct {
		is            bool
		language, why string
	}{
		{base == "fwatchdog" || base == "of-watchdog", OpenFaaS, base + " is the watchdog of OpenFaaS"},
		{base == "lambda-entrypoint.sh" || base == "aws-lambda-ric" || strings.Contains(line, "awslambdaric"), Lambda, base + " is a client of AWS Lambda's runtime API"},
		{variable("LAMBDA_RUNTIME_DIR") || variable("LAMBDA_TASK_ROOT"), Lambda, "its environment has the variables of AWS Lambda"},
		{strings.Contains(line, "actionproxy") || img.Dir == "/nodejsAction" || img.Dir == "/actionProxy", OpenWhisk, "it runs the action proxy of OpenWhisk"},
		{variable("OW_COMPILER") || variable("OW_LOG_INIT_ERROR") || variable("OW_EXECUTION_ENV") || variable("OW_WAIT_FOR_ACK") || variable("FLASK_PROXY_PORT"), OpenWhisk, "its environment has the variables of an OpenWhisk runtime"},
		{len(img.Ports) > 0, HTTPServer, fmt.Sprintf("the image exposes port %d", img.Port)},
		{variable("PORT"), HTTPServer, "the image sets PORT"},
		{own, Executable, "a command is given, and the image exposes no port"},
	} {
		if c.is {
			return c.language, c.why
		}
	}
	return HTTPServer, "images are servers on $PORT unless --language says otherwise"
}

// lastVariable returns a variable of an environment, of which the last one counts.
func lastVariable(env []string, name string) string {
	for _, e := range slices.Backward(env) {
		if k, v, ok := strings.Cut(e, "="); ok && k == name {
			return v
		}
	}
	return ""
}

// imageEnv is the environment of an image's program without what Environ says, which wins.
func imageEnv(rev *faas.Revision) []string {
	img := rev.Image
	env := map[string]string{"PATH": imagePath, "HOME": "/tmp"}
	for _, e := range img.Env {
		if k, v, ok := strings.Cut(e, "="); ok && k != "" && strings.IndexByte(e, 0) < 0 {
			env[k] = v
		}
	}
	switch rev.Runtime {
	case HTTPServer, OpenWhisk:
		env["PORT"] = strconv.Itoa(imagePort(rev))
	case Lambda:
		maps.Copy(env, lambdaEnv(rev))
	}
	var out []string
	for k, v := range env {
		if _, own := rev.Env[k]; !own && !slices.Contains(rev.Secrets, k) {
			out = append(out, k+"="+v)
		}
	}
	slices.Sort(out)
	return out
}

// imagePort is where the server of a revision listens.
func imagePort(rev *faas.Revision) int {
	if rev.Image == nil {
		return Port
	}
	if rev.Runtime == OpenFaaS {
		for _, port := range []string{rev.Env["port"], lastVariable(rev.Image.Env, "port")} {
			if n, err := strconv.Atoi(port); err == nil && n > 0 && n < 1<<16 {
				return n
			}
		}
		return Port
	}
	if rev.Runtime == OpenWhisk || rev.Image.Port == 0 {
		return Port
	}
	return rev.Image.Port
}

// ImageDir returns where an image's program starts: the directory it names, if it has that.
func ImageDir(img *Image) (string, error) {
	root, err := openImage(img.Root)
	if err != nil {
		return "", err
	}
	defer root.close()
	return imageDir(root, img), nil
}

func imageDir(root *imageRoot, img *Image) string {
	dir := path.Clean("/" + img.Dir)
	if f, err := root.open(dir); err == nil {
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.IsDir() {
			return dir
		}
	}
	return "/"
}

// CodeTarget is where a revision's code is seen.
func CodeTarget(rev *faas.Revision) string {
	if rev.Image != nil && rev.Runtime == Lambda {
		return orElse(lastVariable(rev.Image.Env, "LAMBDA_TASK_ROOT"), lambdaTask)
	}
	return CodeDir
}

// imageRoot is the root directory of an image. Links in it lead where they do in a process that has
// it as its root, and never out of it.
type imageRoot struct{ fd int }

func openImage(dir string) (*imageRoot, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return &imageRoot{fd}, nil
}

func (r *imageRoot) close() { _ = unix.Close(r.fd) }

func (r *imageRoot) open(name string) (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(r.fd, name, &how)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) { // something was renamed meanwhile, anywhere
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

// program finds a command's program as the shell would and says whether it can run here.
func (r *imageRoot) program(name, dir, search string) (string, error) {
	if strings.Contains(name, "/") {
		if !path.IsAbs(name) {
			name = path.Join(dir, name)
		}
		return name, r.check(name, 0)
	}
	search = orElse(search, imagePath)
	for _, in := range strings.Split(search, ":") {
		if !path.IsAbs(in) {
			in = path.Join(dir, in)
		}
		full := path.Join(in, name)
		f, err := r.open(full)
		if err != nil {
			continue
		}
		info, err := f.Stat()
		_ = f.Close()
		if err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return full, r.check(full, 0)
		}
	}
	return "", faas.Errorf(faas.Invalid, imageOp, "the image has no program %q in its PATH, %s", clip(name), clip(search)).
		WithFix("say what is run with --entry and --command, as in --entry /app/server")
}

// maxShebangs is how many scripts may be each other's interpreters; what the kernel allows.
const maxShebangs = 4

// check says whether a program of the image can be executed: whether it is one, for this machine, and
// what it needs to be started is there.
func (r *imageRoot) check(name string, deep int) error {
	f, err := r.open(name)
	if err != nil {
		return faas.Errorf(faas.Invalid, imageOp, "the image has no program %s", clip(name)).WithFix("say what is run with --entry and --command")
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return faas.Errorf(faas.Invalid, imageOp, "%s of the image is not an executable file", clip(name)).WithFix("mark it executable in the image: chmod +x")
	}
	head := make([]byte, 256)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return err
	}
	head = head[:n]
	switch line, script := bytes.CutPrefix(head, []byte("#!")); {
	case script:
		line, _, _ = bytes.Cut(line, []byte{'\n'})
		words := strings.Fields(string(line))
		if bytes.HasSuffix(line, []byte{'\r'}) || len(words) == 0 || deep == maxShebangs {
			return faas.Errorf(faas.Invalid, imageOp, "the first line of %s names no program that could run it", clip(name)).
				WithFix("write it with line ends of Unix, and a first line such as #!/bin/sh")
		}
		if err := r.check(words[0], deep+1); err != nil {
			return faas.Errorf(faas.Invalid, imageOp, "%s is run by %s, as its first line says: %s", clip(name), clip(words[0]), faas.AsError(err).Message()).
				WithFix("put the interpreter into the image, or run another program with --entry")
		}
		return nil
	case bytes.HasPrefix(head, []byte(elf.ELFMAG)):
		return r.checkELF(name, f)
	}
	return faas.Errorf(faas.Invalid, imageOp, "%s of the image is neither a program for Linux nor a script with a first line that names one", clip(name)).
		WithFix("begin it with a line such as #!/bin/sh, or say what runs it with --entry")
}

func (r *imageRoot) checkELF(name string, f *os.File) error {
	loader, err := loaderOf(f)
	switch wrong := (*machineError)(nil); {
	case errors.As(err, &wrong):
		return faas.Errorf(faas.Invalid, imageOp, "%s of the image is a program for %s; this machine is %s", clip(name), wrong.have, runtime.GOARCH).
			WithFix("build the image for linux/%s: docker build --platform linux/%s …", runtime.GOARCH, runtime.GOARCH)
	case err != nil:
		return faas.Errorf(faas.Invalid, imageOp, "%s of the image begins like a program but is damaged: %v", clip(name), err)
	case loader == "":
		return nil
	}
	l, err := r.open(loader)
	if err != nil {
		return faas.Errorf(faas.Invalid, imageOp, "%s of the image is linked to a C library whose loader, %s, the image does not have", clip(name), clip(loader)).
			WithFix("link it statically, or use a base image with that library")
	}
	return l.Close()
}

// Loader returns the dynamic loader that a program of an image names; "" if it is none that has one.
func Loader(root, program string) string {
	r, err := openImage(root)
	if err != nil {
		return ""
	}
	defer r.close()
	f, err := r.open(program)
	if err != nil {
		return ""
	}
	defer f.Close()
	loader, err := loaderOf(f)
	if err != nil {
		return ""
	}
	return loader
}

// machineError says for which processor a program is that cannot run here.
type machineError struct{ have string }

func (e *machineError) Error() string { return "it is for " + e.have }

// loaderOf returns the loader that a program asks for, "" if it is linked statically.
func loaderOf(f io.ReaderAt) (string, error) {
	e, err := elf.NewFile(f)
	if err != nil {
		return "", err
	}
	if want := elfMachines[runtime.GOARCH]; want != 0 && e.Machine != want {
		return "", &machineError{strings.TrimPrefix(e.Machine.String(), "EM_")}
	}
	for _, prog := range e.Progs {
		if prog.Type != elf.PT_INTERP || prog.Filesz > 4096 {
			continue
		}
		b, err := io.ReadAll(prog.Open())
		if err != nil {
			return "", err
		}
		return strings.TrimRight(string(b), "\x00"), nil
	}
	return "", nil
}
