//go:build !amd64 && !arm64

package sandbox

// spawnerBinary is empty: the Go stand-in is used.
var spawnerBinary, waitBinary []byte
