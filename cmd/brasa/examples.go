package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"time"

	"github.com/brasa-dev/brasa/examples"
	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/daemon"
)

// exampleSpace is the namespace that the examples are deployed to.
const exampleSpace = "default"

// deployExamples deploys the bundled examples and says what to try. Those that must be compiled
// come last, since that takes its time. One that can't run here, for want of a language or of the
// network, is named with the reason and holds up no other.
func (a *app) deployExamples(ctx context.Context, client *api.Client, config daemon.Config) error {
	var compiled []examples.Example
	for _, e := range examples.List() {
		switch {
		case len(e.Build) > 0: // by a compiler of the person's choice
		case isCompiled(e):
			compiled = append(compiled, e)
		default:
			a.showExample(ctx, client, e)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	brasa, from := selfCommand()
	if from != "" {
		from = ", from " + from
	}
	flags := reachFlags(config)
	a.out.Say(`
Try in another terminal%s:
  %s invoke hello -d '{"name":"Ada"}'%s
  curl '%s?q=slow+race'
  %s trace last%s`, from, brasa, flags, client.URL(exampleSpace, "search"), brasa, flags)
	if len(compiled) > 0 {
		a.out.Say("\nThe examples in Go and Java are being compiled, which takes a while the first time.")
	}
	for _, e := range compiled {
		a.showExample(ctx, client, e)
	}
	return ctx.Err()
}

// isCompiled says whether an example is source that is compiled at deploy.
func isCompiled(e examples.Example) bool {
	for _, pattern := range []string{"*.go", "*.java"} {
		if files, err := fs.Glob(examples.FS, path.Join(e.Dir, pattern)); err == nil && len(files) > 0 {
			return true
		}
	}
	return false
}

// showExample deploys an example and says how that went.
func (a *app) showExample(ctx context.Context, client *api.Client, e examples.Example) {
	s := a.out.ErrStyles()
	begin := time.Now()
	outcome, err := deployExample(ctx, client, e)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		a.out.Say("%s %-14s %s", s.Warn.Render("not    "), e.Name, cli.CleanLine(cli.Explain(err).Because))
		return
	}
	a.out.Say("%s %-14s %s  %s", s.Good.Render("example"), e.Name, s.Faint.Render(fmt.Sprintf("%6s", cli.Took(time.Since(begin)))), e.About)
	a.out.Detail("        %s", outcome.URL)
}

func deployExample(ctx context.Context, client *api.Client, e examples.Example) (*api.Outcome, error) {
	have, err := client.Secrets(ctx, exampleSpace)
	if err != nil {
		return nil, err
	}
	for name, value := range e.Secrets {
		// One that is there may be the user's own by now.
		if slices.ContainsFunc(have, func(s api.Secret) bool { return s.Name == name }) {
			continue
		}
		if _, err := client.PutSecret(ctx, exampleSpace, name, value); err != nil {
			return nil, err
		}
	}
	code, err := e.Archive()
	if err != nil {
		return nil, err
	}
	public := e.Public
	spec := api.Spec{Public: &public}
	for name := range e.Secrets {
		spec.Secrets = append(spec.Secrets, name)
	}
	if e.Network {
		spec.Network = "egress"
	}
	return client.Deploy(ctx, exampleSpace, e.Name, spec, api.Code{Reader: bytes.NewReader(code), Filename: e.Name + ".tar.gz"})
}
