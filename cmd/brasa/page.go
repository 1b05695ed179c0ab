package main

import (
	"context"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/spf13/cobra"
)

// pageFlags choose the part of a long list of calls that is shown.
type pageFlags struct {
	limit  int
	cursor string
}

func (f *pageFlags) add(c *cobra.Command) {
	c.Flags().IntVar(&f.limit, "limit", 0, "`N` calls at most: 50")
	c.Flags().StringVar(&f.cursor, "cursor", "", "`CURSOR` of the page before, for the next page")
}

// listCalls lists calls of the queue or dead letters, of one function where args name it. fetch gets a
// page and says what it is in each form of output.
func (a *app) listCalls(c *cobra.Command, f *pageFlags, args []string, stage, what, none string, fetch func(context.Context, *api.Client, string, api.Page) (callPage, error)) error {
	fn := faas.Name{Namespace: a.namespace}
	page := api.Page{Stage: faas.Stage(stage), Limit: f.limit, Cursor: f.cursor}
	var err error
	if len(args) > 0 {
		if fn, err = a.function(args[0]); err != nil {
			return err
		}
		page.Function = fn.Path()
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	got, err := fetch(c.Context(), client, fn.Namespace, page)
	if err == nil && len(got.ids) == 0 && page.Function != "" {
		err = a.known(c.Context(), client, fn)
	}
	if err != nil {
		return cli.While(err, "list %s", what)
	}
	if err := a.list(got.data, got.ids, got.grid, none); err != nil {
		return err
	}
	if f := a.out.Format; got.cursor != "" && (f == cli.Table || f == cli.Wide) {
		a.out.Say("more: --cursor %s", got.cursor)
	}
	return nil
}

// callPage is a page of calls in each form of output.
type callPage struct {
	data   any
	ids    []string
	grid   *cli.Grid
	cursor string // of the next page; empty: this is the last
}
