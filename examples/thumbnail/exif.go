package thumbnail

import (
	"bytes"
	"encoding/binary"
)

// orientationOf finds how a camera was held, from the EXIF data of a JPEG: 1 to 8, 1 when it is
// not said.
func orientationOf(jpeg []byte) int {
	const upright = 1
	if !bytes.HasPrefix(jpeg, []byte{0xff, 0xd8}) {
		return upright
	}
	for b := jpeg[2:]; len(b) >= 4 && b[0] == 0xff; {
		marker, size := b[1], int(binary.BigEndian.Uint16(b[2:]))
		if marker == 0xda || size < 2 || size+2 > len(b) { // the pixels begin, or it is broken
			return upright
		}
		segment := b[4 : 2+size]
		if marker == 0xe1 && bytes.HasPrefix(segment, []byte("Exif\x00\x00")) {
			return tiffOrientation(segment[6:], upright)
		}
		b = b[2+size:]
	}
	return upright
}

// tiffOrientation reads tag 0x0112 of the first directory of a TIFF.
func tiffOrientation(t []byte, otherwise int) int {
	if len(t) < 8 {
		return otherwise
	}
	var order binary.ByteOrder = binary.LittleEndian
	if t[0] == 'M' {
		order = binary.BigEndian
	}
	at := uint64(order.Uint32(t[4:]))
	if at+2 > uint64(len(t)) {
		return otherwise
	}
	entries := int(order.Uint16(t[at:]))
	for i := range entries {
		e := at + 2 + 12*uint64(i)
		if e+12 > uint64(len(t)) {
			break
		}
		if order.Uint16(t[e:]) == 0x0112 {
			if o := int(order.Uint16(t[e+8:])); o >= 1 && o <= 8 {
				return o
			}
			break
		}
	}
	return otherwise
}
