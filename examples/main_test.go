package examples_test

import (
	"os"
	"testing"

	"github.com/brasa-dev/brasa/internal/wasm"
)

func TestMain(m *testing.M) {
	wasm.Main(os.Args) // the server that the tests start serves modules, as brasa's does
	os.Exit(m.Run())
}
