package thumbnail

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/png"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
)

func post(t *testing.T, query string, body []byte) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	Handle(w, httptest.NewRequest("POST", "/"+query, bytes.NewReader(body)))
	return w
}

func encoded(t *testing.T, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestMeanIsOfLight shrinks a chessboard: half of the light is a bright grey, not a dark one.
func TestMeanIsOfLight(t *testing.T) {
	board := image.NewGray(image.Rect(0, 0, 64, 64))
	for i := range board.Pix {
		if (i+i/64)%2 == 0 {
			board.Pix[i] = 255
		}
	}
	w := post(t, "?w=8&h=8&format=png", encoded(t, board))
	small, err := png.Decode(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := small.At(3, 4), (color.NRGBA{188, 188, 188, 255}); color.NRGBAModel.Convert(got) != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestTransparentPixelsHaveNoColour checks that what can't be seen does not tint what can.
func TestTransparentPixelsHaveNoColour(t *testing.T) {
	img := image.NewNRGBA(image.Rect(0, 0, 2, 1))
	img.SetNRGBA(0, 0, color.NRGBA{200, 100, 50, 255})
	img.SetNRGBA(1, 0, color.NRGBA{0, 255, 0, 0})
	got := shrink(img, [4]float64{0, 0, 2, 1}, 1, 1).NRGBAAt(0, 0)
	if want := (color.NRGBA{200, 100, 50, 128}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestSpansCoverAll checks that every source pixel counts, and counts once.
func TestSpansCoverAll(t *testing.T) {
	for _, c := range [][2]int{{7, 3}, {1000, 333}, {5, 5}, {4096, 1}, {3, 2}} {
		counts := make([]float64, c[0]+1)
		for _, s := range spans(0, float64(c[0]), c[1]) {
			for k, w := range s.weights {
				counts[s.from+k] += float64(w)
			}
		}
		want := float64(c[1]) / float64(c[0])
		for i, got := range counts[:c[0]] {
			if got < want*0.999 || got > want*1.001 {
				t.Errorf("%d to %d: pixel %d counts %g, want %g", c[0], c[1], i, got, want)
			}
		}
	}
}

func TestOrientations(t *testing.T) {
	// Three wide, two high; the corners tell where each went.
	src := image.NewNRGBA(image.Rect(0, 0, 3, 2))
	src.SetNRGBA(0, 0, color.NRGBA{R: 1, A: 255})
	for o, want := range map[int]image.Point{1: {0, 0}, 2: {2, 0}, 3: {2, 1}, 4: {0, 1}, 5: {0, 0}, 6: {1, 0}, 7: {1, 2}, 8: {0, 2}} {
		if got := upright(src, o); got.NRGBAAt(want.X, want.Y).R != 1 {
			t.Errorf("orientation %d: the upper left corner is not at %v", o, want)
		}
	}
	exif := []byte("Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00")
	jpeg := slices.Concat([]byte{0xff, 0xd8, 0xff, 0xe1}, binary.BigEndian.AppendUint16(nil, uint16(len(exif)+2)), exif, []byte{0xff, 0xda, 0, 2})
	if got := orientationOf(jpeg); got != 6 {
		t.Errorf("orientation %d, want 6", got)
	}
	for n := range jpeg {
		orientationOf(jpeg[:n]) // must not panic
	}
}

// TestEnormousPictureIsRefused sends a few bytes that claim to be 100,000 × 100,000 pixels.
func TestEnormousPictureIsRefused(t *testing.T) {
	b := encoded(t, image.NewGray(image.Rect(0, 0, 1, 1)))
	head := b[12:29] // "IHDR", width, height, five more bytes
	binary.BigEndian.PutUint32(head[4:], 100_000)
	binary.BigEndian.PutUint32(head[8:], 100_000)
	binary.BigEndian.PutUint32(b[29:], crc32.ChecksumIEEE(head))
	if w := post(t, "", b); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d, want 413: %s", w.Code, w.Body)
	}
}

func TestNeverLarger(t *testing.T) {
	w := post(t, "?w=4096&h=4096", encoded(t, image.NewGray(image.Rect(0, 0, 30, 20))))
	if cfg, _, err := image.DecodeConfig(w.Body); err != nil || cfg.Width != 30 || cfg.Height != 20 {
		t.Errorf("got %+v, %v; want 30 × 20", cfg, err)
	}
}
