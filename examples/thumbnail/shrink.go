package thumbnail

import (
	"image"
	"image/draw"
	"math"
)

// linear are the 256 values of sRGB as amounts of light, and byte8 the way back: an average of
// light is what an eye sees from afar, an average of the values themselves is too dark.
var (
	linear [256]float32
	byte8  [4096]uint8
)

func init() {
	for i := range linear {
		v := float64(i) / 255
		if v <= 0.04045 {
			v /= 12.92
		} else {
			v = math.Pow((v+0.055)/1.055, 2.4)
		}
		linear[i] = float32(v)
	}
	for i := range byte8 {
		v := float64(i) / float64(len(byte8)-1)
		if v <= 0.0031308 {
			v *= 12.92
		} else {
			v = 1.055*math.Pow(v, 1/2.4) - 0.055
		}
		byte8[i] = uint8(v*255 + 0.5)
	}
}

// span is the stretch of source pixels that one target pixel covers.
type span struct {
	from    int
	weights []float32 // they add up to 1
}

// spans divides the stretch [lo, hi) of source pixels among n target pixels. A source pixel on a
// border counts for each side as much as lies there, so nothing is skipped or counted twice.
func spans(lo, hi float64, n int) []span {
	out := make([]span, n)
	step := (hi - lo) / float64(n)
	for i := range out {
		a, b := lo+float64(i)*step, lo+float64(i+1)*step
		from, to := int(math.Floor(a)), int(math.Ceil(b-1e-9))
		s := span{from: from, weights: make([]float32, max(1, to-from))}
		for k := range s.weights {
			left, right := max(a, float64(from+k)), min(b, float64(from+k+1))
			s.weights[k] = float32((right - left) / step)
		}
		out[i] = s
	}
	return out
}

// shrink returns the part crop of src as w by h pixels: each is the mean of the light of the
// area that it covers. It reads one row of src at a time, so it needs little memory beyond the
// picture itself. w and h must not be larger than crop.
func shrink(src image.Image, crop [4]float64, w, h int) *image.NRGBA {
	bounds := src.Bounds()
	columns, rows := spans(crop[0], crop[2], w), spans(crop[1], crop[3], h)
	dst := image.NewNRGBA(image.Rect(0, 0, w, h))
	line := image.NewRGBA(image.Rect(0, 0, bounds.Dx(), 1))
	narrow, sum := make([]float32, 4*w), make([]float32, 4*w)
	at := -1 // the source row that narrow holds
	for y, row := range rows {
		clear(sum)
		for k, weight := range row.weights {
			if sy := min(row.from+k, bounds.Dy()-1); sy != at {
				at = sy
				draw.Draw(line, line.Bounds(), src, image.Pt(bounds.Min.X, bounds.Min.Y+sy), draw.Src)
				squeeze(narrow, line.Pix, columns)
			}
			for i, v := range narrow {
				sum[i] += weight * v
			}
		}
		store(dst.Pix[y*dst.Stride:], sum)
	}
	return dst
}

// squeeze averages a row's pixels into light that is multiplied by its alpha.
func squeeze(dst []float32, pix []uint8, columns []span) {
	for x, column := range columns {
		var r, g, b, a float32
		for k, weight := range column.weights {
			i := min(4*(column.from+k), len(pix)-4)
			p := pix[i : i+4 : i+4]
			switch alpha := uint32(p[3]); alpha {
			case 255:
				r += weight * linear[p[0]]
				g += weight * linear[p[1]]
				b += weight * linear[p[2]]
				a += weight
			case 0:
			default: // the row's values are multiplied by alpha; light is so only afterwards
				weight *= float32(alpha) / 255
				r += weight * linear[uint32(p[0])*255/alpha]
				g += weight * linear[uint32(p[1])*255/alpha]
				b += weight * linear[uint32(p[2])*255/alpha]
				a += weight
			}
		}
		dst[4*x], dst[4*x+1], dst[4*x+2], dst[4*x+3] = r, g, b, a
	}
}

// store writes a row of light as pixels.
func store(pix []uint8, sum []float32) {
	for i := 0; i < len(sum); i += 4 {
		a := sum[i+3]
		if a < 1.0/512 {
			pix[i], pix[i+1], pix[i+2], pix[i+3] = 0, 0, 0, 0
			continue
		}
		for k := range 3 {
			pix[i+k] = byte8[int(min(max(sum[i+k]/a, 0), 1)*float32(len(byte8)-1)+0.5)]
		}
		pix[i+3] = uint8(min(a, 1)*255 + 0.5)
	}
}

// upright turns a picture as the orientation of its EXIF data says, 1 to 8.
func upright(src *image.NRGBA, orientation int) *image.NRGBA {
	if orientation <= 1 || orientation > 8 {
		return src
	}
	w, h := src.Rect.Dx(), src.Rect.Dy()
	size := image.Rect(0, 0, w, h)
	if orientation >= 5 {
		size = image.Rect(0, 0, h, w)
	}
	dst := image.NewNRGBA(size)
	for y := range h {
		for x := range w {
			var tx, ty int
			switch orientation {
			case 2:
				tx, ty = w-1-x, y
			case 3:
				tx, ty = w-1-x, h-1-y
			case 4:
				tx, ty = x, h-1-y
			case 5:
				tx, ty = y, x
			case 6:
				tx, ty = h-1-y, x
			case 7:
				tx, ty = h-1-y, w-1-x
			case 8:
				tx, ty = y, w-1-x
			}
			copy(dst.Pix[dst.PixOffset(tx, ty):][:4], src.Pix[src.PixOffset(x, y):][:4])
		}
	}
	return dst
}
