package openwhisk

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"

	"github.com/brasa-dev/brasa/internal/faas"
)

// withCode puts an action's code into its record: as it was sent, or, of a function that was not made
// through this API, its files.
func (s *Server) withCode(ctx context.Context, a *action) error {
	r := &a.record
	if r.NoCode || r.Exec.Kind == kindSequence {
		return nil
	}
	text := ""
	switch {
	case a.rev.Source != "":
		b, err := s.read(ctx, a.rev.Source)
		if err != nil {
			return err
		}
		if text = string(b); r.Exec.Binary {
			text = base64.StdEncoding.EncodeToString(b)
		}
	case a.rev.Contract == faas.ContractNative && a.rev.Code != "":
		b, binary, err := s.files(ctx, a.rev.Code)
		if err != nil {
			return err
		}
		if text, r.Exec.Binary = string(b), binary; binary {
			text = base64.StdEncoding.EncodeToString(b)
		}
	}
	r.Exec.Code = &text
	return nil
}

// read reads a blob that may be as large as code may be.
func (s *Server) read(ctx context.Context, digest faas.Digest) (_ []byte, err error) {
	blob, err := s.cfg.Depot.Get(ctx, digest)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	b, err := io.ReadAll(io.LimitReader(blob, int64(s.cfg.Limits.Code)+1))
	if err == nil && int64(len(b)) > int64(s.cfg.Limits.Code) {
		err = tooLarge("The action's code", int64(len(b)), int64(s.cfg.Limits.Code))
	}
	return b, err
}

// files returns the files of a tree: the text of one that is alone, else an archive of all.
func (s *Server) files(ctx context.Context, digest faas.Digest) (_ []byte, binary bool, err error) {
	tree, err := s.cfg.Depot.Get(ctx, digest)
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, tree.Close()) }()
	var packed, only bytes.Buffer
	var total int64
	n := 0
	z := zip.NewWriter(&packed)
	for in := tar.NewReader(tree); ; {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, false, fmt.Errorf("read code: %w", err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if total += h.Size; total > int64(s.cfg.Limits.Code) {
			return nil, false, tooLarge("The function's code", total, int64(s.cfg.Limits.Code))
		}
		head := &zip.FileHeader{Name: h.Name, Method: zip.Deflate}
		head.SetMode(h.FileInfo().Mode())
		w, err := z.CreateHeader(head)
		if err != nil {
			return nil, false, err
		}
		var to io.Writer = w
		if n++; n == 1 {
			to = io.MultiWriter(w, &only)
		}
		if _, err := io.Copy(to, in); err != nil {
			return nil, false, fmt.Errorf("read code: %w", err)
		}
	}
	if err := z.Close(); err != nil {
		return nil, false, err
	}
	if n == 1 && !bytes.ContainsRune(only.Bytes(), 0) {
		return only.Bytes(), false, nil
	}
	return packed.Bytes(), true, nil
}
