package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/daemon"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/spf13/cobra"
)

func newServe(a *app) *cobra.Command {
	var flags serverFlags
	var examples bool
	c := &cobra.Command{
		Use:     "serve [flags]",
		Aliases: []string{"start", "server"},
		Short:   "Start the server here",
		Long: `Start the server and run it until Ctrl-C. At the first start a key is made that may do
everything; it lies in admin.key in the data directory, where the other commands find it.

As root every function is confined by all the kernel has. As an ordinary user the server
starts itself again in a user namespace; what is lost then is said, also by brasa doctor.`,
		Example: `  brasa serve
  brasa serve --listen 0.0.0.0:8080 --data /srv/brasa
  brasa serve --config /etc/brasa.yaml --set limits.memory_bytes=512MiB
  brasa serve --examples`,
		RunE: func(c *cobra.Command, _ []string) error {
			config, err := flags.load(a, c)
			if err != nil {
				return err
			}
			if sandbox.NeedsReexec() {
				// In there the user is root; the data stays the user's.
				if err := os.Setenv("BRASA_DATA", config.Data); err != nil {
					return err
				}
				code, err := sandbox.Reexec(os.Args[1:])
				if err != nil {
					return cli.While(err, "start again in a user namespace")
				}
				if code == 0 {
					return nil
				}
				return &cli.QuietError{Exit: code}
			}
			return a.serve(c.Context(), config, examples)
		},
	}
	flags.add(c)
	c.Flags().BoolVar(&examples, "examples", false, "deploy the bundled examples and say what to try")
	return c
}

func (a *app) serve(ctx context.Context, config daemon.Config, examples bool) error {
	_, err := auth.ReadFile(adminKey(config.Data))
	first := errors.Is(err, os.ErrNotExist)
	if (a.out.ErrTTY || examples) && !a.verbose && config.Log == slog.LevelInfo {
		// The greeting tells what the log's first lines would; -v shows them all.
		config.Log = slog.LevelWarn
	}
	d, err := daemon.New(config)
	if err != nil {
		return cli.While(err, "start the server")
	}
	d.Version = api.Version{Version: version, Commit: commit(), Go: runtime.Version()}
	ended := make(chan struct{})
	greeted := make(chan struct{})
	go func() { // ends when the greeting is said or the server has ended
		defer close(greeted)
		greeting, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			select {
			case <-ended:
				cancel()
			case <-greeting.Done():
			}
		}()
		if err := a.greet(greeting, config, first, examples); err != nil && greeting.Err() == nil {
			a.out.Warn("%v", err)
		}
	}()
	err = d.Run(ctx)
	close(ended)
	<-greeted
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		a.out.Say("stopped")
		return nil
	}
	return cli.While(startFailure(err, config), "run the server")
}

// startFailure makes what ended the server an error that says what to do, where that is known.
func startFailure(err error, config daemon.Config) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*faas.Error](err); ok {
		return err
	}
	e := &faas.Error{Code: faas.Unavailable, Err: err}
	if op, ok := errors.AsType[*net.OpError](err); ok && errors.Is(err, syscall.EADDRINUSE) {
		if op.Net == "unix" {
			return e.WithFix("stop it, or choose a name of your own for this one: --set prefix=brasa2, or BRASA_PREFIX=brasa2")
		}
		return e.WithFix("something listens at %s already; choose another address: --listen 127.0.0.1:8081", config.Listen)
	}
	return e
}

// greet says, once the server takes calls, what a person wants to know of it.
func (a *app) greet(ctx context.Context, config daemon.Config, first, examples bool) error {
	client, err := waitReady(ctx, config)
	if err != nil {
		return err
	}
	defer client.Close()
	s := a.out.ErrStyles()
	a.out.Say("%s  %s", s.Strong.Render("brasa "+version), s.Accent.Render(config.URL))
	a.out.Say("data   %s", config.Data)
	if first {
		key, err := auth.ReadFile(adminKey(config.Data))
		if err != nil {
			return err
		}
		a.out.Say("key    %s\n       it may do everything and is shown this once; it stays in %s", key, adminKey(config.Data))
	}
	for _, l := range losses(sandbox.Probe()) {
		a.out.Say("%s  %s", s.Warn.Render("lost "), l)
	}
	if examples {
		return a.deployExamples(ctx, client, config)
	}
	brasa, _ := selfCommand()
	flags := reachFlags(config)
	a.out.Say("try    %s init hello -l python && %s deploy hello%s && %s invoke hello%s", brasa, brasa, flags, brasa, flags)
	return nil
}

// selfCommand returns what a person types to run this program: its name if the shell finds it, else
// its path as it was typed here, with the directory from which that path leads to it.
func selfCommand() (command, from string) {
	self, err := os.Executable()
	if err != nil {
		return "brasa", ""
	}
	if found, err := exec.LookPath("brasa"); err == nil && sameFile(found, self) {
		return "brasa", ""
	}
	typed := os.Args[0]
	if filepath.IsAbs(typed) || !sameFile(typed, self) {
		return quoted(self), ""
	}
	dir, err := os.Getwd()
	if err != nil {
		return quoted(self), ""
	}
	return quoted(typed), dir
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// quoted writes a word for a shell.
func quoted(s string) string {
	if strings.IndexFunc(s, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("/._-+:@%,=", r)
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// reachFlags returns the flags with which a command reaches a server that is not where commands
// look for it.
func reachFlags(config daemon.Config) string {
	var flags string
	if config.URL != defaultServer {
		flags += " --server " + quoted(config.URL)
	}
	if config.Data != daemon.DefaultData() {
		flags += " --data " + quoted(config.Data)
	}
	return flags
}

// losses says what is lost on this machine, each loss once with the features whose lack it is.
func losses(features sandbox.Features) []string {
	lack := map[string][]string{}
	var order []string
	for _, f := range features {
		if f.Have || f.Lost == "" {
			continue
		}
		if lack[f.Lost] == nil {
			order = append(order, f.Lost)
		}
		lack[f.Lost] = append(lack[f.Lost], f.Name)
	}
	for i, lost := range order {
		order[i] = strings.Join(lack[lost], ", ") + ": " + lost
	}
	return order
}

// readyPoll is how often the server is asked whether it takes calls.
const readyPoll = 10 * time.Millisecond

func waitReady(ctx context.Context, config daemon.Config) (*api.Client, error) {
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		if client := answering(ctx, config); client != nil {
			return client, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// answering returns a client of our server once it takes calls. If the address was taken,
// another one answers there, which does not know our key.
func answering(ctx context.Context, config daemon.Config) *api.Client {
	key, err := auth.ReadFile(adminKey(config.Data))
	if err != nil {
		return nil
	}
	client, err := api.NewClient(config.URL, key)
	if err != nil {
		return nil
	}
	if r, err := client.Ready(ctx); err == nil && r.Ready {
		if who, err := client.Whoami(ctx); err == nil && who.Admin {
			return client
		}
	}
	client.Close()
	return nil
}
