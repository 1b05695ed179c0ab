package sandbox

import _ "embed"

//go:embed spawner/bin/spawner-arm64
var spawnerBinary []byte
