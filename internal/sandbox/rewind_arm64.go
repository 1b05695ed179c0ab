package sandbox

import _ "embed"

//go:embed spawner/bin/rewind-arm64
var rewindBinary []byte

// rewindShown is false: the program compiles, and has not been run on a machine of this kind.
const rewindShown = false
