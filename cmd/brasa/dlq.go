package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/spf13/cobra"
)

func newDlq(a *app) *cobra.Command {
	return newGroup("dlq", "See the async calls that were given up, and send them again", []string{"dead-letters", "dead"},
		newDlqLs(a), newDlqShow(a),
		newDlqDo(a, "redrive", "queued", "Queue async calls anew that were given up, with the same ids and all attempts before them", (*api.Client).Redrive),
		newDlqDo(a, "purge", "removed", "Remove async calls for good that were given up", (*api.Client).Purge))
}

func newDlqLs(a *app) *cobra.Command {
	var page pageFlags
	c := &cobra.Command{
		Use:               "ls [NAME] [flags]",
		Aliases:           []string{"list"},
		Short:             "List the async calls that were given up, oldest first",
		Example:           "  brasa dlq ls\n  brasa dlq ls report -o wide",
		Args:              atMost(1),
		ValidArgsFunction: a.completeFunctions,
		RunE: func(c *cobra.Command, args []string) error {
			return a.listCalls(c, &page, args, "", "the dead letters", "no dead letters", func(ctx context.Context, client *api.Client, namespace string, p api.Page) (callPage, error) {
				letters, err := client.DeadLetters(ctx, namespace, p)
				ids, g := a.deadGrid(letters.Letters)
				return callPage{letters, ids, g, letters.Cursor}, err
			})
		},
	}
	page.add(c)
	return c
}

func (a *app) deadGrid(letters []api.DeadLetter) (ids []string, g *cli.Grid) {
	now, wide := a.out.Now(), a.out.Format == cli.Wide
	head := []string{"ID", "FUNCTION", "DIED", "ATTEMPTS", "SIZE", "WHY"}
	if wide {
		head = append(head, "KIND", "QUEUED", "ORDER", "KEY", "SUBJECT")
	}
	g = cli.NewGrid(head...)
	for _, d := range letters {
		row := []string{string(d.ID), d.Function, cli.Ago(d.Died, now), strconv.Itoa(d.Attempt), cli.Size(d.Bytes), cli.CleanLine(d.Why)}
		if wide {
			row = append(row, string(d.Kind), cli.Ago(d.Queued, now), cli.CleanLine(d.Order), cli.CleanLine(d.Key), cli.CleanLine(d.Subject))
		}
		g.Row(row...)
		ids = append(ids, string(d.ID))
	}
	return ids, g
}

func newDlqShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "show ID",
		Aliases:           []string{"get"},
		Short:             "Show an async call that was given up, with all that the function would be called with",
		Example:           "  brasa dlq show 0192f3c1a2b34c5d8e6f708192a3b4c5",
		Args:              exactly("ID"),
		ValidArgsFunction: a.completeDead,
		RunE: func(c *cobra.Command, args []string) error {
			id, err := faas.ParseID(args[0])
			if err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			d, err := client.DeadLetter(c.Context(), a.namespace, string(id))
			if err != nil {
				return cli.While(err, "show dead letter %s", id)
			}
			return a.out.Data(d, func(w io.Writer) error {
				if a.out.Format == cli.Names {
					_, err := fmt.Fprintln(w, d.ID)
					return err
				}
				_, err := io.WriteString(w, a.describeDead(d))
				return err
			})
		},
	}
}

func (a *app) describeDead(d *api.DeadLetterInfo) string {
	s, now := a.out.OutStyles(), a.out.Now()
	var b strings.Builder
	line := func(label, value string) {
		if value != "" {
			b.WriteString(s.Faint.Render(fmt.Sprintf("%-11s", label)) + cli.CleanLine(value) + "\n")
		}
	}
	line("id", string(d.ID))
	line("cause", string(d.Cause))
	line("function", d.Function)
	line("why", d.Why)
	line("died", cli.Ago(d.Died, now)+", queued "+cli.Ago(d.Queued, now)+", attempts: "+strconv.Itoa(d.Attempt))
	line("kind", string(d.Kind))
	line("key", d.Key)
	line("order", d.Order)
	line("priority", string(d.Priority))
	line("subject", d.Subject)
	request := strings.TrimSpace(d.Method + " " + d.Path)
	if d.Query != "" {
		request += "?" + d.Query
	}
	line("request", request)
	names := make([]string, 0, len(d.Header))
	for k := range d.Header {
		names = append(names, k)
	}
	slices.Sort(names)
	for _, k := range names {
		line("header", k+": "+strings.Join(d.Header[k], ", "))
	}
	line("send again", "brasa dlq redrive "+string(d.ID)+a.namespaceFlag())
	body := string(d.Body)
	if text, err := strconv.Unquote(body); err == nil && d.Encoding == "" {
		body = text
	}
	if a.out.OutTTY {
		body = cli.Clean(body)
	}
	b.WriteString("\n" + strings.TrimRight(body, "\n") + "\n")
	return b.String()
}

// newDlqDo makes a command that does something to dead letters, chosen by their ids, by their function,
// or all.
func newDlqDo(a *app, verb, did, short string, do func(*api.Client, context.Context, string, api.DeadSpec) (int, error)) *cobra.Command {
	var function string
	var all bool
	c := &cobra.Command{
		Use:               verb + " ID...|--function NAME|--all",
		Short:             short,
		Example:           "  brasa dlq " + verb + " 0192f3c1a2b34c5d8e6f708192a3b4c5\n  brasa dlq " + verb + " --function report\n  brasa dlq " + verb + " --all --yes",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeDead,
		RunE: func(c *cobra.Command, args []string) error {
			given := 0
			for _, is := range []bool{len(args) > 0, function != "", all} {
				if is {
					given++
				}
			}
			if given != 1 {
				return cli.Usagef("say which: one or more ids, or --function NAME, or --all").WithFix("brasa dlq ls")
			}
			fn := faas.Name{Namespace: a.namespace}
			specs := []api.DeadSpec{{All: all}}
			question := "all dead letters of " + fn.Namespace
			switch {
			case len(args) > 0:
				specs = nil
				question = fmt.Sprintf("%d dead letters", len(args))
				for _, arg := range args {
					id, err := faas.ParseID(arg)
					if err != nil {
						return err
					}
					specs = append(specs, api.DeadSpec{ID: string(id)})
				}
			case function != "":
				var err error
				if fn, err = a.function(function); err != nil {
					return err
				}
				specs[0].Function, question = fn.Path(), "all dead letters of "+fn.Path()
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			if verb == "purge" || all {
				if err := a.confirm("%s %s?", verb, question); err != nil {
					return err
				}
			}
			count := 0
			for i, spec := range specs {
				n, err := do(client, c.Context(), fn.Namespace, spec)
				if count += n; err != nil {
					if i > 0 {
						a.out.Say("%s %d before that", did, count)
					}
					return cli.While(err, "%s dead letters", verb)
				}
			}
			return a.count(count, did)
		},
	}
	c.Flags().StringVar(&function, "function", "", "`NAME` of the function whose dead letters are meant")
	c.Flags().BoolVar(&all, "all", false, "all of the namespace")
	completeFlag(c, "function", a.completeFunctions)
	return c
}

// completeDead completes the ids of dead letters.
func (a *app) completeDead(c *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.complete(c, func(ctx context.Context, client *api.Client) (ids []cobra.Completion) {
		page, _ := client.DeadLetters(ctx, a.namespace, api.Page{Limit: 20})
		for _, d := range page.Letters {
			ids = append(ids, cobra.CompletionWithDesc(string(d.ID), d.Function+" "+cli.CleanLine(d.Why)))
		}
		return ids
	})
}
