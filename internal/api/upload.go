package api

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/brasa-dev/brasa/internal/faas"
)

// upload is code that was sent, with how it is to be run.
type upload struct {
	spec     Spec
	filename string
	code     io.Reader
	file     *os.File        // what code reads, if it does not lie in memory
	image    *os.File        // an archive; nil: none was sent
	archive  string          // its file name
	input    *bodyPart       // what comes after the code, still to be read; nil: none
	value    json.RawMessage // the input, where the request was one JSON document
}

// Close gives the space of the code back.
func (u *upload) Close() {
	for _, f := range []*os.File{u.file, u.image} {
		if f != nil {
			_ = f.Close() // it has no name: this is its end
		}
	}
}

// bodyPart is a part of a form that is read as it arrives.
type bodyPart struct {
	io.Reader
	contentType string
}

// receive reads a request that brings code: a form with the parts spec, code and, for run, input,
// or one JSON document. Code goes to a file as it arrives and is counted there.
func (s *Server) receive(r *http.Request, run bool) (*upload, error) {
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case err == nil && media == "multipart/form-data":
		return s.receiveForm(r, params["boundary"], run)
	case err == nil && media == jsonType:
		return s.receiveJSON(r, run)
	}
	e := faas.Errorf(faas.Invalid, "read request", "the body's content type %.80q is not one that this route takes", r.Header.Get("Content-Type")).
		WithFix("send it as multipart/form-data with the parts spec and code, or as %s", jsonType)
	return nil, &protocolError{status: http.StatusUnsupportedMediaType, err: e}
}

// maxSource bounds a JSON document that has code in it, which is held in memory.
const maxSource = 4 * faas.MiB

func (s *Server) receiveJSON(r *http.Request, run bool) (*upload, error) {
	body, err := readMost(r.Body, maxSource)
	if err == errOver {
		return nil, faas.Errorf(faas.TooLarge, "read request", "a JSON document with code in it may have up to %s", maxSource).
			WithLimit("body_bytes").WithFix("send the code as a file, in a form")
	}
	if err != nil {
		return nil, broke(err)
	}
	var spec RunSpec
	if run {
		p, err := decode[RunSpec](s, "body", body)
		if err != nil {
			return nil, err
		}
		spec = *p
	} else {
		p, err := decode[SourceSpec](s, "body", body)
		if err != nil {
			return nil, err
		}
		spec.SourceSpec = *p
	}
	name, err := filename(spec.Filename)
	if err != nil {
		return nil, err
	}
	u := &upload{spec: spec.Spec, filename: name, value: spec.Input}
	if spec.Code != "" || spec.Image == "" {
		u.code = strings.NewReader(spec.Code)
	}
	return u, nil
}

func (s *Server) receiveForm(r *http.Request, boundary string, run bool) (*upload, error) {
	if boundary == "" {
		return nil, faas.Errorf(faas.Invalid, "read form", "the content type names no boundary")
	}
	u := &upload{}
	if err := s.takeParts(u, multipart.NewReader(r.Body, boundary), run); err != nil {
		u.Close()
		return nil, err
	}
	return u, nil
}

// takeParts reads a form up to the part that is read while the code runs.
func (s *Server) takeParts(u *upload, form *multipart.Reader, run bool) error {
	seen := map[string]bool{}
	for {
		part, err := form.NextRawPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			return broke(err)
		}
		name := part.FormName()
		if seen[name] {
			return faas.Errorf(faas.Invalid, "read form", "the part %.80q comes twice", name)
		}
		seen[name] = true
		switch {
		case name == "spec":
			err = s.takeSpec(u, part)
		case name == "code":
			err = s.takeCode(u, part)
		case name == "image" && !run:
			err = s.takeImage(u, part)
		case name == "input" && run:
			if !seen["code"] {
				return faas.Errorf(faas.Invalid, "read form", "the part input comes before the part code").WithFix("send the parts in the order spec, code, input")
			}
			contentType := part.Header.Get("Content-Type")
			if contentType == "" {
				contentType = "text/plain; charset=utf-8" // RFC 7578, section 4.4
			}
			u.input = &bodyPart{part, contentType}
			return nil // read while the code runs
		default:
			return faas.Errorf(faas.Invalid, "read form", "unknown part %.80q", name).WithFix("the parts are spec, code, image and, for run, input")
		}
		if err != nil {
			return err
		}
	}
	if !seen["code"] && !seen["image"] && u.spec.Image == "" {
		return faas.Errorf(faas.Invalid, "read form", "there is no part code").WithFix("send the code as a file: curl -F code=@FILE")
	}
	return nil
}

func (s *Server) takeSpec(u *upload, part io.Reader) error {
	b, err := readMost(part, maxDocument)
	if err == errOver {
		return faas.Errorf(faas.TooLarge, "read form", "the part spec is over %s", maxDocument).WithLimit("body_bytes")
	}
	if err != nil {
		return broke(err)
	}
	spec, err := decode[Spec](s, "spec", b)
	if err != nil {
		return err
	}
	u.spec = *spec
	return nil
}

// takeCode writes the code to a file without a name, so that nothing of it outlives the process.
func (s *Server) takeCode(u *upload, part *multipart.Part) error {
	name, err := filename(rawFilename(part))
	if err != nil {
		return err
	}
	u.filename = name
	tooLarge := faas.Errorf(faas.TooLarge, "read form", "the code is over %s", s.cfg.MaxCode).
		WithLimit("code_bytes").WithFix("leave out what the function does not need; .brasaignore names files that are not sent")
	if u.file, err = s.spool(part, s.cfg.MaxCode, tooLarge); err == nil {
		u.code = u.file
	}
	return err
}

// takeImage writes an archive with an image to such a file.
func (s *Server) takeImage(u *upload, part *multipart.Part) (err error) {
	if u.archive, err = filename(rawFilename(part)); err != nil {
		return err
	}
	tooLarge := faas.Errorf(faas.TooLarge, "read form", "the image is over %s", s.cfg.MaxImage).
		WithLimit("image_packed_bytes").WithFix("make the image smaller, or have the operator raise images.packed")
	u.image, err = s.spool(part, s.cfg.MaxImage, tooLarge)
	return err
}

// spool writes a part of a form to a file without a name, and fails with tooLarge if it is over most.
func (s *Server) spool(part io.Reader, most faas.Bytes, tooLarge error) (_ *os.File, err error) {
	f, err := os.CreateTemp(s.cfg.Dir, "upload-")
	if err != nil {
		return nil, faas.AsError(err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	if err := os.Remove(f.Name()); err != nil {
		return nil, faas.AsError(err)
	}
	n, err := io.Copy(f, io.LimitReader(part, int64(most)+1))
	if err != nil {
		if pe, ok := errors.AsType[*os.PathError](err); ok { // of the file, not of the request
			return nil, faas.Errorf(faas.Unavailable, "store code", "the code can't be stored: %w", pe.Err)
		}
		return nil, broke(err)
	}
	if faas.Bytes(n) > most {
		return nil, tooLarge
	}
	_, err = f.Seek(0, io.SeekStart)
	return f, err
}

// rawFilename returns the file's name as it was sent; Part.FileName would take a path's last part.
func rawFilename(part *multipart.Part) string {
	_, params, err := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
	if err != nil {
		return ""
	}
	return params["filename"]
}

// filename takes the last part of a path that a browser may have sent, and refuses what is no
// name for a file.
func filename(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	name := path.Base(strings.ReplaceAll(s, `\`, "/"))
	bad := !utf8.ValidString(name) || name == "." || name == ".." || name == "/" || len(name) > 255 || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f })
	if bad {
		return "", faas.Errorf(faas.Invalid, "read request", "%.80q is not a name for a file", s)
	}
	return name, nil
}

var errOver = errors.New("over the limit")

// readMost reads all of r, and fails with errOver if that is more than most.
func readMost(r io.Reader, most faas.Bytes) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, int64(most)+1))
	if err == nil && faas.Bytes(len(b)) > most {
		err = errOver
	}
	return b, err
}

// broke is the error for a body that could not be read to its end. What the gateway found wrong
// with it comes through as it is.
func broke(err error) error {
	if e, ok := errors.AsType[*faas.Error](err); ok {
		return e
	}
	return faas.Errorf(faas.Invalid, "read request", "the body ends too early or is not well formed: %v", err)
}
