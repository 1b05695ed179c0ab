package main

import (
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/spf13/cobra"
)

func newSequence(a *app) *cobra.Command {
	return newGroup("sequence", "Make functions of others that are called one after the other", []string{"sequences", "seq"},
		newSequenceCreate(a), newSequenceLs(a))
}

func newSequenceCreate(a *app) *cobra.Command {
	var steps []string
	var timeout time.Duration
	var public, errorField bool
	var policy policyFlags
	c := &cobra.Command{
		Use:     "create NAME --steps FIRST,SECOND... [flags]",
		Aliases: []string{"update", "add", "new"},
		Short:   "Make a function of others, or change one",
		Long: `Make a function of others, or change one. They are called one after the other, each with the
answer of the one before; the first gets the input, the last gives the answer. One that fails,
or that answers with a status of 400 and more, ends it.

A sequence is a function: it is invoked, looked at, rolled back and deleted as others are, and
may be a step of another sequence. Its record lists the calls it has made.`,
		Example: `  brasa sequence create photo --steps check,resize,store
  brasa invoke photo -d @cat.jpg
  brasa invoke photo -d @cat.jpg --async
  brasa inv get last`,
		Args: exactly("NAME"), ValidArgsFunction: a.completeFunctions,
		RunE: func(c *cobra.Command, args []string) error {
			fn, err := a.function(args[0])
			if err != nil {
				return err
			}
			spec := api.SequenceSpec{Steps: steps, ErrorField: errorField, Timeout: faas.Duration(timeout)}
			if len(steps) == 0 {
				return cli.Usagef("a sequence has steps").WithFix("brasa sequence create %s --steps FIRST,SECOND", fn.Path())
			}
			if timeout != 0 && timeout < time.Millisecond {
				return cli.Usagef("--timeout %s: it is at least 1ms", timeout)
			}
			if spec.Async, err = policy.policy(); err != nil {
				return err
			}
			if c.Flags().Changed("public") {
				spec.Public = &public
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			f, err := client.PutSequence(c.Context(), fn.Namespace, fn.Path(), spec)
			if err != nil {
				return cli.While(err, "create sequence %q", fn.Path())
			}
			return a.done(f, f.Name+": "+strings.Join(f.Steps, " → "))
		},
	}
	f := c.Flags()
	f.StringSliceVar(&steps, "steps", nil, "`NAMES` of functions, with commas between them; repeatable")
	f.DurationVar(&timeout, "timeout", 0, "`TIME` of the whole (default as long as its steps may take together)")
	f.BoolVar(&errorField, "error-field", false, "an answer that is a JSON object with the field error ends it, too")
	f.BoolVar(&public, "public", false, "its URL needs no key")
	policy.add(c)
	completeFlag(c, "steps", a.completeFunctions)
	return c
}

func newSequenceLs(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the sequences",
		Long:    "List the sequences. brasa ls lists them among the other functions.",
		Example: "  brasa sequence ls",
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			functions, err := client.Functions(c.Context(), a.namespace)
			if err != nil {
				return cli.While(err, "list the sequences of %q", a.namespace)
			}
			list, names, g := []api.Summary{}, []string{}, cli.NewGrid("NAME", "STEPS", "UPDATED")
			for _, f := range functions {
				if f.Runtime != faas.RuntimeSequence {
					continue
				}
				list, names = append(list, f), append(names, f.Name)
				g.Row(f.Name, strings.Join(f.Steps, " → "), cli.Ago(f.Updated, a.out.Now()))
			}
			return a.list(map[string]any{"sequences": list}, names, g, "no sequences; make one with: brasa sequence create NAME --steps FIRST,SECOND")
		},
	}
}
