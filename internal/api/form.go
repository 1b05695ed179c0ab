package api

import (
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"mime/multipart"
	"net/textproto"

	"github.com/brasa-dev/brasa/internal/faas"
)

// form is a multipart body that is written while it is sent.
type form struct {
	spec      []byte
	err       error
	code      Code
	imaged    bool // the spec names an image
	input     io.Reader
	inputType string
	written   chan struct{} // closed when nothing is read any more
}

func newForm(spec Spec) *form {
	f := &form{written: make(chan struct{}), imaged: spec.Image != ""}
	f.spec, f.err = json.Marshal(spec)
	return f
}

// start begins to write the form. Closing the body ends the writer.
func (f *form) start() (contentType string, body io.ReadCloser) {
	r, w := io.Pipe()
	m := multipart.NewWriter(w)
	go func() { // ends when the form is written, or at the next read after r is closed
		defer close(f.written)
		_ = w.CloseWithError(f.write(m))
	}()
	return m.FormDataContentType(), r
}

func (f *form) write(m *multipart.Writer) error {
	if f.err != nil {
		return f.err
	}
	// The spec goes first: the server decides by it before it takes the code.
	if err := part(m, "spec", "", jsonType, bytes.NewReader(f.spec)); err != nil {
		return err
	}
	if f.code.Reader == nil && f.code.Image == nil && !f.imaged {
		return faas.Errorf(faas.Invalid, "send code", "there is no code to send")
	}
	if f.code.Reader != nil {
		if err := part(m, "code", f.code.Filename, "application/octet-stream", f.code.Reader); err != nil {
			return err
		}
	}
	if f.code.Image != nil {
		if err := part(m, "image", f.code.ImageFile, "application/octet-stream", f.code.Image); err != nil {
			return err
		}
	}
	if f.input != nil { // last, so that it can stream into the function
		if err := part(m, "input", "input", f.inputType, f.input); err != nil {
			return err
		}
	}
	return m.Close()
}

func part(m *multipart.Writer, name, filename, contentType string, r io.Reader) error {
	h := textproto.MIMEHeader{}
	params := map[string]string{"name": name}
	if filename != "" {
		params["filename"] = filename
	}
	h.Set("Content-Disposition", mime.FormatMediaType("form-data", params))
	h.Set("Content-Type", contentType)
	w, err := m.CreatePart(h)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return err
}
