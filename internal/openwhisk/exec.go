package openwhisk

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/deploy"
	"github.com/brasa-dev/brasa/internal/faas"
)

// Kinds that no runtime stands behind.
const (
	kindSequence = "sequence"
	kindBlackbox = "blackbox"
)

// ofSkeleton is the language of the code that comes with an image of which nothing is needed to run it:
// one that clients name who bring an executable of their own. Empty: the image itself is meant.
func ofSkeleton(image string) string {
	name, _, _ := strings.Cut(image[strings.LastIndexByte(image, '/')+1:], ":")
	switch {
	case name == "dockerskeleton":
		return runsPerCall
	case strings.HasPrefix(name, "actionloop"):
		return runsLoop
	}
	return ""
}

// Languages of executables, as a deploy names them.
const (
	runsPerCall = deploy.NativeAction
	runsLoop    = "actionloop"
)

// code is an action's code as it was sent, decoded.
type code struct {
	exec     execution // without the code
	bytes    []byte
	none     bool   // not even an empty one was sent
	kind     kind   // zero: sequence or blackbox
	steps    []path // of a sequence
	language string // as a deploy names it; empty: an image's
}

// readExec reads the exec of a request and says what is wrong with it. namespace is the caller's.
func (s *Server) readExec(raw json.RawMessage, namespace string) (*code, error) {
	malformed := func(format string, args ...any) error {
		return reject(http.StatusBadRequest, "The request content was malformed: "+format, args...)
	}
	var in struct {
		Kind       any             `json:"kind"`
		Code       *string         `json:"code"`
		Binary     bool            `json:"binary"`
		Main       *string         `json:"main"`
		Image      *string         `json:"image"`
		Components json.RawMessage `json:"components"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return nil, unreadable("exec", err)
	}
	name, ok := in.Kind.(string)
	if !ok || name == "" {
		return nil, malformed("'kind' must be a string defined in 'exec': one of %s", s.kindNames())
	}
	out := &code{exec: execution{Kind: name}, none: in.Code == nil}
	if in.Main != nil {
		if out.exec.Main = strings.TrimSpace(*in.Main); out.exec.Main == "" {
			return nil, malformed("'main' must be a non-empty string defined in 'exec'")
		}
	}
	if name == kindSequence {
		return out, out.readComponents(in.Components, namespace)
	}
	if in.Code != nil {
		if err := out.readCode(*in.Code, in.Binary, s.cfg.Limits.Code); err != nil {
			return nil, err
		}
	}
	if name == kindBlackbox {
		if in.Image == nil || strings.TrimSpace(*in.Image) == "" {
			return nil, malformed("'image' must be a string defined in 'exec' for %q actions", name)
		}
		out.exec.Image = strings.TrimSpace(*in.Image)
		if len(out.bytes) > 0 {
			out.language = ofSkeleton(out.exec.Image)
		}
		return out, nil
	}
	if out.kind, ok = findKind(name); !ok {
		return nil, malformed("kind '%.60s' not in %s", name, s.kindNames())
	}
	out.exec.Kind, out.language = out.kind.Name, out.kind.Language
	switch {
	case out.kind.Deprecated:
		return nil, malformed("runtime '%s' is deprecated: an action of it can be read and deleted, and neither made nor changed nor called", out.kind.Name)
	case s.lacks(out.kind) != nil && !out.compiled():
		return nil, malformed("kind '%s' can't be run here: %v; there are %s", out.kind.Name, s.lacks(out.kind), s.kindNames())
	case in.Code == nil:
		return nil, malformed("'code' must be a string defined in 'exec' for '%s' actions", out.kind.Name)
	case out.kind.Main && out.exec.Main == "":
		return nil, malformed("'main' must be a string defined in 'exec' for '%s' actions", out.kind.Name)
	}
	if s.lacks(out.kind) != nil {
		out.language = runsLoop
	}
	return out, nil
}

// compiled says whether the code is a program, in a language whose programs speak ActionLoop: that needs no
// toolchain.
func (c *code) compiled() bool {
	if !slices.Contains([]string{"go", "rust", "swift"}, c.kind.Family) || !c.exec.Binary {
		return false
	}
	const magic = "\x7fELF"
	if bytes.HasPrefix(c.bytes, []byte(magic)) {
		return true
	}
	z, err := zip.NewReader(bytes.NewReader(c.bytes), int64(len(c.bytes)))
	if err != nil {
		return false
	}
	f, err := z.Open("exec")
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, len(magic))
	_, err = io.ReadFull(f, head)
	return err == nil && string(head) == magic
}

// readCode decodes code. What is base64 of an archive or a program is that, whether or not it is said.
func (c *code) readCode(text string, binary bool, most faas.Bytes) error {
	if n := int64(len(text)); n > int64(most) {
		return tooLarge("The action's code", n, int64(most))
	}
	plain, err := base64.StdEncoding.DecodeString(strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' {
			return -1
		}
		return r
	}, strings.TrimSpace(text)))
	switch {
	case binary && err != nil:
		return reject(http.StatusBadRequest, "The request content was malformed: 'code' is said to be binary and is no base64.")
	case err == nil && len(plain) > 0 && (binary || isBinary(plain)):
		c.bytes, c.exec.Binary = plain, true
	default:
		c.bytes = []byte(text)
	}
	return nil
}

// isBinary says whether bytes begin as archives and programs do.
func isBinary(b []byte) bool {
	for _, magic := range []string{"PK\x03\x04", "PK\x05\x06", "\x1f\x8b", "\x7fELF", "\xca\xfe\xba\xbe", "\x00asm"} {
		if bytes.HasPrefix(b, []byte(magic)) {
			return true
		}
	}
	return len(b) > 262 && string(b[257:262]) == "ustar"
}

// readComponents reads the actions of a sequence, which are named in full.
func (c *code) readComponents(raw json.RawMessage, namespace string) error {
	var names []reference
	if err := json.Unmarshal(raw, &names); err != nil || raw == nil {
		return reject(http.StatusBadRequest, "The request content was malformed: 'components' must be defined for a sequence: a list of names such as /_/action.")
	}
	if len(names) == 0 {
		return reject(http.StatusBadRequest, "No component specified for the sequence.")
	}
	for _, name := range names {
		p, ok := name.parse(namespace)
		if !ok {
			return reject(http.StatusBadRequest, "The request content was malformed: %.80q is not the name of an action, fully qualified, as /_/action and /ns/package/action are.", string(name))
		}
		c.steps = append(c.steps, p)
		c.exec.Components = append(c.exec.Components, "/"+p.String())
	}
	return nil
}
