package sandbox

import _ "embed"

//go:embed spawner/bin/spawner-arm64
var spawnerBinary []byte

//go:embed spawner/bin/wait-arm64
var waitBinary []byte
