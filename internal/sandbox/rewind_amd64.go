package sandbox

import _ "embed"

//go:embed spawner/bin/rewind-amd64
var rewindBinary []byte

const rewindShown = true
