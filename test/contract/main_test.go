package contract

import (
	"os"
	"testing"

	"github.com/brasa-dev/brasa/internal/typescript"
	"github.com/brasa-dev/brasa/internal/wasm"
)

func TestMain(m *testing.M) {
	wasm.Main(os.Args) // this binary is what serves modules, as brasa itself is
	typescript.Main(os.Args)
	os.Exit(m.Run())
}
