package qr

import (
	"encoding/hex"
	"image/png"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestStandardsExample makes the codewords of annex I of ISO/IEC 18004, "01234567" in version 1-M.
func TestStandardsExample(t *testing.T) {
	const text = "01234567"
	data := modeOf(text).encode(text, 1, dataCodewords(1, Medium))
	got := hex.EncodeToString(interleave(data, 1, Medium))
	const want = "10200c566180ec11ec11ec11ec11ec11" + "a524d4c1ed36c7872c55"
	if got != want {
		t.Errorf("codewords\n got %s\nwant %s", got, want)
	}
}

func TestVersionsGrowWithTheText(t *testing.T) {
	for _, c := range []struct {
		text    string
		level   Level
		version int
	}{
		{strings.Repeat("8", 41), Low, 1}, {strings.Repeat("8", 42), Low, 2},
		{strings.Repeat("A", 16), Quartile, 1}, {strings.Repeat("A", 17), Quartile, 2},
		{strings.Repeat("a", 2953), Low, 40}, {strings.Repeat("8", 7089), Low, 40}, {strings.Repeat("é", 636), High, 40},
	} {
		code, err := Encode(c.text, c.level)
		if err != nil || code.Version != c.version || code.Size != 17+4*c.version {
			t.Errorf("%d bytes at level %d: got %+v, %v; want version %d", len(c.text), c.level, code, err, c.version)
		}
	}
	if _, err := Encode(strings.Repeat("a", 2954), Low); err != errTooLong {
		t.Errorf("2,954 bytes: got %v, want %v", err, errTooLong)
	}
}

func TestPNGHasAQuietZone(t *testing.T) {
	w := httptest.NewRecorder()
	Handle(w, httptest.NewRequest("GET", "/?text=HELLO&format=png&scale=2", nil))
	img, err := png.Decode(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	if side := img.Bounds().Dx(); side != 2*(21+8) {
		t.Errorf("the picture is %d wide, want %d", side, 2*(21+8))
	}
	if r, _, _, _ := img.At(7, 7).RGBA(); r == 0 {
		t.Error("the quiet zone is dark")
	}
	if r, _, _, _ := img.At(8, 8).RGBA(); r != 0 {
		t.Error("the finder's corner is light")
	}
}
