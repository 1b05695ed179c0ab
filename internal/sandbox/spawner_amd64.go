package sandbox

import _ "embed"

//go:embed spawner/bin/spawner-amd64
var spawnerBinary []byte

//go:embed spawner/bin/wait-amd64
var waitBinary []byte
