//go:build !amd64 && !arm64

package sandbox

// rewindBinary is empty: used processes are replaced.
var rewindBinary []byte

const rewindShown = false
