package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/spf13/cobra"
)

// callFlags are the flags that say what code is called with; invoke and run share them.
type callFlags struct {
	input   string
	headers []string
	include bool
	raw     bool
	trace   bool
}

func (f *callFlags) add(c *cobra.Command) {
	s := c.Flags()
	s.StringVarP(&f.input, "input", "d", "", "`DATA` that the function is called with: the text itself, @FILE, or - for stdin")
	s.StringArrayVarP(&f.headers, "header", "H", nil, "`'K: V'` that the function sees; repeatable")
	s.BoolVarP(&f.include, "include", "i", false, "show the answer's status and headers on stderr")
	s.BoolVar(&f.raw, "raw", false, "on a terminal too, let the answer's control characters through")
	s.BoolVar(&f.trace, "trace", false, "show on stderr where the time went")
}

// open returns the input and how it is sent, after a look at a flag that people mix it up with.
func (f *callFlags) open(a *app, c *cobra.Command) (in io.Reader, opts api.CallOptions, done func(), err error) {
	given := c.Flags().Changed("input")
	if c.InheritedFlags().Changed("data") && !given {
		if v, _ := c.InheritedFlags().GetString("data"); strings.ContainsAny(v[:min(1, len(v))], `{["@`) || v == "-" {
			return nil, opts, nil, cli.Usagef("--data is the directory of the server's data").WithFix("the input is given as: -d %s", v)
		}
	}
	in, opts, done, err = f.read(given || f.input != "")
	if err == nil && strings.HasPrefix(opts.ContentType, "text/plain") && strings.ContainsAny(f.input[:min(1, len(f.input))], "{[") {
		a.out.Warn("the input begins like JSON and is none, so it is sent as text")
	}
	return in, opts, done, err
}

// read returns the input and how it is sent. What it is is taken from -H, from the file's name,
// or from its first byte, in this order. done releases it.
func (f *callFlags) read(given bool) (in io.Reader, opts api.CallOptions, done func(), err error) {
	done = func() {}
	opts.Header = http.Header{}
	for _, h := range f.headers {
		k, v, ok := strings.Cut(h, ":")
		k, v = strings.TrimSpace(k), strings.TrimSpace(v)
		if !ok || k == "" {
			return nil, opts, done, cli.Usagef("-H %q is no header", h).WithFix("-H 'Name: value'")
		}
		if strings.EqualFold(k, "Content-Type") {
			opts.ContentType = v
			continue
		}
		opts.Header.Add(k, v)
	}
	guess := opts.ContentType == ""
	switch file, isFile := strings.CutPrefix(f.input, "@"); {
	case !given:
		return nil, opts, done, nil
	case f.input == "-":
		b := bufio.NewReader(os.Stdin)
		if guess {
			opts.ContentType = sniff(b)
		}
		return b, opts, done, nil
	case isFile:
		r, err := os.Open(file)
		if err != nil {
			return nil, opts, done, cli.Usagef("-d @%v", strings.TrimPrefix(err.Error(), "open "))
		}
		b := bufio.NewReader(r)
		if guess {
			if opts.ContentType = mime.TypeByExtension(filepath.Ext(file)); opts.ContentType == "" {
				opts.ContentType = sniff(b)
			}
		}
		// A short file is sent with its length, which some HTTP servers want to know.
		short, err := io.ReadAll(io.LimitReader(b, mostShort))
		if err == nil && len(short) < mostShort {
			return bytes.NewReader(short), opts, func() {}, r.Close()
		}
		return io.MultiReader(bytes.NewReader(short), b), opts, func() { _ = r.Close() }, err
	}
	if guess {
		opts.ContentType = "text/plain; charset=utf-8"
		if json.Valid([]byte(f.input)) {
			opts.ContentType = "application/json"
		}
	}
	return strings.NewReader(f.input), opts, done, nil
}

// mostShort is how much of an input is held in memory.
const mostShort = 1 << 20

// sniff guesses from the first bytes; JSON begins with a brace, a bracket or a quote.
func sniff(r *bufio.Reader) string {
	head, _ := r.Peek(1) // an input that can't be read fails when it is sent
	if head = bytes.TrimLeft(head, " \t\r\n"); len(head) > 0 && bytes.ContainsAny(head, `{["`) {
		return "application/json"
	}
	return "application/octet-stream"
}
