// Package qr draws QR codes as SVG, PNG or text.
//
// It is a function in the form of an http.HandlerFunc: ?text=… or the body is what the code
// says; level is L, M (the default), Q or H, format svg (the default), png or text, scale the
// pixels of a module in a PNG, 1 to 40.
package qr

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"net/http"
	"strconv"
	"strings"
)

const (
	quiet    = 4       // modules of light around a code, as the standard asks for
	maxInput = 4 << 10 // no code holds more
)

// Handle answers a text with its QR code.
func Handle(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	text := q.Get("text")
	if text == "" && r.Body != nil {
		b, err := io.ReadAll(io.LimitReader(r.Body, maxInput))
		if err != nil {
			refuse(w, err)
			return
		}
		text = string(b)
	}
	if text == "" {
		refuse(w, errors.New("say what the code shall say: ?text=…, or send it as the body"))
		return
	}
	level := Medium
	if l := strings.ToUpper(q.Get("level")); l != "" {
		i := strings.Index("LMQH", l)
		if i < 0 || len(l) != 1 {
			refuse(w, errors.New("level must be L, M, Q or H"))
			return
		}
		level = Level(i)
	}
	scale := 8
	if s := q.Get("scale"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 40 {
			refuse(w, errors.New("scale must be a number from 1 to 40"))
			return
		}
		scale = n
	}
	code, err := Encode(text, level)
	if err != nil {
		refuse(w, err)
		return
	}
	var body []byte
	switch format := q.Get("format"); format {
	case "", "svg":
		w.Header().Set("Content-Type", "image/svg+xml")
		body = svg(code)
	case "png":
		w.Header().Set("Content-Type", "image/png")
		if body, err = pngOf(code, scale); err != nil {
			refuse(w, err)
			return
		}
	case "text":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		body = blocks(code)
	default:
		refuse(w, errors.New("format must be svg, png or text"))
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=86400")
	_, _ = w.Write(body) // a caller who went away needs no answer
}

// svg draws one path; a run of dark modules is one rectangle of it.
func svg(c *Code) []byte {
	side := c.Size + 2*quiet
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" shape-rendering="crispEdges"><path fill="#fff" d="M0 0h%dv%dH0z"/><path d="`, side, side, side, side)
	for y := range c.Size {
		for x := 0; x < c.Size; x++ {
			if !c.Dark(x, y) {
				continue
			}
			from := x
			for c.Dark(x+1, y) {
				x++
			}
			fmt.Fprintf(&b, "M%d %dh%dv1h-%dz", from+quiet, y+quiet, x-from+1, x-from+1)
		}
	}
	b.WriteString("\"/></svg>\n")
	return b.Bytes()
}

func pngOf(c *Code, scale int) ([]byte, error) {
	side := (c.Size + 2*quiet) * scale
	img := image.NewPaletted(image.Rect(0, 0, side, side), color.Palette{color.White, color.Black})
	for y := range side {
		for x := range side {
			if c.Dark(x/scale-quiet, y/scale-quiet) {
				img.Pix[y*img.Stride+x] = 1
			}
		}
	}
	var b bytes.Buffer
	err := png.Encode(&b, img)
	return b.Bytes(), err
}

// blocks draws two rows of modules in a line of text, for a terminal with light text on dark.
func blocks(c *Code) []byte {
	const margin = 2 // readers of screens do with less than quiet
	var b strings.Builder
	for y := -margin; y < c.Size+margin; y += 2 {
		for x := -margin; x < c.Size+margin; x++ {
			switch top, bottom := c.Dark(x, y), c.Dark(x, y+1); {
			case top && bottom:
				b.WriteByte(' ')
			case top:
				b.WriteString("▄")
			case bottom:
				b.WriteString("▀")
			default:
				b.WriteString("█")
			}
		}
		b.WriteByte('\n')
	}
	return []byte(b.String())
}

func refuse(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
}
