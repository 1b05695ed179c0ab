// Command brasa is the whole platform in one program: the server, and the command line that
// talks to it.
//
// One file per command. What they share stands in app.go (global flags, the client, the way
// out) and in package cli (how it is printed). `brasa serve` builds a daemon and runs it; every
// other command is a client of the native API and could be replaced by curl.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/typescript"
	"github.com/brasa-dev/brasa/internal/wasm"
)

func main() {
	wasm.Main(os.Args)       // what runs modules of WebAssembly, in a sandbox, is this program too
	typescript.Main(os.Args) // and what compiles TypeScript
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The second signal ends the program at once, however long the first one takes.
	defer context.AfterFunc(ctx, stop)()
	a := newApp(args)
	root := newRoot(a)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return cli.ExitOK
	}
	err = explained(err)
	_, remote := errors.AsType[*api.Remote](err)
	if e, ok := errors.AsType[*faas.Error](err); ok && remote && e.Code == faas.Unauthenticated {
		switch {
		case a.noKey != "":
			e.Fix = a.noKey
		case a.keyFrom != "":
			e.Fix = "the key is that of " + a.keyFrom + "; check that it is whole and made for this server"
		}
	}
	if _, quiet := errors.AsType[*cli.QuietError](err); ctx.Err() != nil && !quiet {
		// Whatever broke, it broke because the person wanted it to.
		err = context.Canceled
	}
	return a.out.Fail(err)
}

// explained says of an error of the client's, in the words of package cli, that no server
// answered.
func explained(err error) error {
	if u, ok := errors.AsType[*api.Unreachable](err); ok {
		return errors.Join(err, &cli.UnreachableError{Server: u.Server, Err: u.Err})
	}
	return err
}
