// Command cmd runs the measurements of package bench: make bench.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/brasa-dev/brasa/internal/bench"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "plain" {
		fail(bench.Plain("127.0.0.1:0"))
		return
	}
	if len(os.Args) > 3 && os.Args[1] == "floor" {
		functions, err := strconv.Atoi(os.Args[3])
		fail(err)
		fail(bench.Floor("127.0.0.1:0", os.Args[2], functions))
		return
	}
	cfg := bench.Config{Out: os.Stdout}
	flag.StringVar(&cfg.Binary, "brasa", "bin/brasa", "program to measure")
	flag.BoolVar(&cfg.JSON, "json", false, "print one JSON object as the last line")
	only := flag.String("only", "", "measure these keys alone, divided by commas; names of measurements will do")
	flag.IntVar(&cfg.Scale, "scale", 0, "idle functions; default 100,000")
	flag.IntVar(&cfg.Calls, "calls", 0, "mixed calls after which nothing may have grown; default 100,000")
	flag.IntVar(&cfg.Many, "many", 0, "instances at once and calls at once; default 1,000")
	flag.IntVar(&cfg.Drain, "drain", 0, "calls that wait and are worked off; default 20,000")
	flag.Parse()
	if *only != "" {
		cfg.Only = strings.Split(*only, ",")
	}
	var err error
	cfg.Self, err = os.Executable()
	fail(err)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fail(bench.Run(ctx, cfg))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
