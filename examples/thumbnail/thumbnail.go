// Package thumbnail makes pictures smaller: JPEG, PNG or GIF in, JPEG or PNG out.
//
// It is a function in the form of an http.HandlerFunc. The query says what is wanted:
// w and h (pixels, 1 to 4096; one of them is enough, 256 by 256 when there is none),
// fit (contain, the default, or cover, which crops), format (jpeg or png), quality (1 to 100).
// A picture is never made larger, and a photo comes out the right way up.
package thumbnail

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	_ "image/gif" // Decode's formats
	"image/jpeg"
	"image/png"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

const (
	maxBytes  = 32 << 20
	maxPixels = 40_000_000 // 160 MB as RGBA, the largest form a decoder makes of 8-bit pictures
	maxSide   = 4096
)

// options are what a call asks for.
type options struct {
	w, h    int // 0: as the other side has it
	cover   bool
	format  string // "": as fits the picture
	quality int
}

func readOptions(q url.Values) (options, error) {
	o := options{quality: 85, format: q.Get("format")}
	for _, f := range []struct {
		name string
		to   *int
		most int
	}{{"w", &o.w, maxSide}, {"h", &o.h, maxSide}, {"quality", &o.quality, 100}} {
		if s := q.Get(f.name); s != "" {
			n, err := strconv.Atoi(s)
			if err != nil || n < 1 || n > f.most {
				return o, fmt.Errorf("%s must be a number from 1 to %d", f.name, f.most)
			}
			*f.to = n
		}
	}
	if o.w == 0 && o.h == 0 {
		o.w, o.h = 256, 256
	}
	switch fit := q.Get("fit"); fit {
	case "", "contain":
	case "cover":
		o.cover = o.w > 0 && o.h > 0
	default:
		return o, errors.New("fit must be contain or cover")
	}
	switch o.format {
	case "jpg":
		o.format = "jpeg"
	case "", "jpeg", "png":
	default:
		return o, errors.New("format must be jpeg or png")
	}
	return o, nil
}

// Handle answers a picture with a smaller one.
func Handle(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		w.Header().Set("Allow", "POST, PUT")
		refuse(w, http.StatusMethodNotAllowed, errors.New("send a picture as the body: curl --data-binary @photo.jpg …"))
		return
	}
	o, err := readOptions(r.URL.Query())
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBytes))
	if err != nil {
		refuse(w, http.StatusRequestEntityTooLarge, err)
		return
	}
	// The size is looked at before the pixels: a small file can claim to be an enormous picture.
	head, kind, err := image.DecodeConfig(bytes.NewReader(data))
	switch {
	case err != nil:
		refuse(w, http.StatusUnsupportedMediaType, errors.New("the body is not a JPEG, PNG or GIF"))
		return
	case int64(head.Width)*int64(head.Height) > maxPixels:
		refuse(w, http.StatusRequestEntityTooLarge, fmt.Errorf("the picture has %d × %d pixels; at most %d fit", head.Width, head.Height, maxPixels))
		return
	case head.Width == 0 || head.Height == 0:
		refuse(w, http.StatusUnprocessableEntity, errors.New("the picture has no pixels"))
		return
	}
	src, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		refuse(w, http.StatusUnprocessableEntity, fmt.Errorf("the %s cannot be read: %w", kind, err))
		return
	}
	small := o.apply(src, orientationOf(data))
	if o.format == "" {
		o.format = "jpeg"
		if kind != "jpeg" && !small.Opaque() {
			o.format = "png"
		}
	}
	var out bytes.Buffer
	if o.format == "png" {
		err = (&png.Encoder{CompressionLevel: png.BestSpeed}).Encode(&out, small)
	} else {
		err = jpeg.Encode(&out, onWhite(small), &jpeg.Options{Quality: o.quality})
	}
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	w.Header().Set("Content-Type", "image/"+o.format)
	w.Header().Set("Content-Length", strconv.Itoa(out.Len()))
	w.Header().Set("X-Picture", fmt.Sprintf("%s %dx%d to %dx%d", kind, head.Width, head.Height, small.Rect.Dx(), small.Rect.Dy()))
	_, _ = w.Write(out.Bytes()) // a caller who went away needs no answer
}

// apply makes the picture that o asks for.
func (o options) apply(src image.Image, orientation int) *image.NRGBA {
	sw, sh := float64(src.Bounds().Dx()), float64(src.Bounds().Dy())
	w, h := float64(o.w), float64(o.h)
	if orientation >= 5 { // the camera lay on its side
		w, h = h, w
	}
	crop := [4]float64{0, 0, sw, sh}
	if o.cover {
		if sw*h > sh*w { // too wide
			cut := (sw - sh*w/h) / 2
			crop[0], crop[2] = cut, sw-cut
		} else {
			cut := (sh - sw*h/w) / 2
			crop[1], crop[3] = cut, sh-cut
		}
	}
	cw, ch := crop[2]-crop[0], crop[3]-crop[1]
	scale := 1.0
	if w > 0 {
		scale = min(scale, w/cw)
	}
	if h > 0 {
		scale = min(scale, h/ch)
	}
	return upright(shrink(src, crop, side(cw*scale), side(ch*scale)), orientation)
}

func side(f float64) int { return max(1, int(f+0.5)) }

// onWhite lays a picture on white, since a JPEG can't be seen through.
func onWhite(src *image.NRGBA) *image.NRGBA {
	if src.Opaque() {
		return src
	}
	for i := 0; i < len(src.Pix); i += 4 {
		a := uint32(src.Pix[i+3])
		for k := range 3 {
			src.Pix[i+k] = uint8((uint32(src.Pix[i+k])*a + 255*(255-a) + 127) / 255)
		}
		src.Pix[i+3] = 255
	}
	return src
}

func refuse(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
}
