// Command cmd runs the measurements of package bench: make bench.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/brasa-dev/brasa/internal/bench"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "plain" {
		fail(bench.Plain("127.0.0.1:0"))
		return
	}
	binary := flag.String("brasa", "bin/brasa", "program to measure")
	asJSON := flag.Bool("json", false, "print one JSON object")
	calls := flag.Int("calls", 4000, "warm calls of each side")
	cold := flag.Int("cold", 60, "cold calls of each side")
	flag.Parse()
	self, err := os.Executable()
	fail(err)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fail(bench.Run(ctx, bench.Config{Binary: *binary, Self: self, Calls: *calls, Cold: *cold, Out: os.Stdout, JSON: *asJSON}))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
