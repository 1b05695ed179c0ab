package main

import (
	"context"
	"strings"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/spf13/cobra"
)

func newRun(a *app) *cobra.Command {
	var flags specFlags
	var calls callFlags
	var code string
	c := &cobra.Command{
		Use:     "run FILE|DIR|- [flags]",
		Aliases: []string{"exec", "eval"},
		Short:   "Run code once, without deploying it",
		Long: `Run code once in a sandbox of its own and write its answer to stdout. Nothing is deployed;
the record and the logs are kept as for any call. The code is a function as for deploy.`,
		Example: `  brasa run hello.py -d '{"name":"Ada"}'
  brasa run -l python -c 'def main(args): return 6*7'
  cat job.js | brasa run - -l node --timeout 5s
  brasa run ./job --memory 1GiB --network egress --json`,
		Args: atMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			spec, err := flags.spec(a)
			if err != nil {
				return err
			}
			var src *source
			switch {
			case code != "" && len(args) > 0:
				return cli.Usagef("there is code in -c and in %s; which is to run?", args[0])
			case code != "" && flags.language == "":
				return cli.Usagef("code of -c has no file name, so its language must be said").WithFix("%s", languageHint)
			case code != "":
				src = inlineSource(code, flags.language)
			case len(args) == 0:
				return missing(c, "FILE")
			case args[0] == "-" && calls.input == "-":
				return cli.Usagef("code and input can't both come from stdin").WithFix("give the input as -d @FILE")
			default:
				if src, err = openSource(args[0], flags.language); err != nil {
					return err
				}
			}
			defer src.close()
			client, err := a.client()
			if err != nil {
				return err
			}
			in, opts, closeInput, err := calls.open(a, c)
			if err != nil {
				return err
			}
			defer closeInput()
			err = a.call(c.Context(), client, a.namespace, calls, call{
				task: "run " + src.what, doing: "running " + src.what,
				whole: func(ctx context.Context) (*api.Reply, error) {
					return client.Run(ctx, a.namespace, spec, src.Code, opts, in)
				},
				stream: func(ctx context.Context) (*api.Stream, error) {
					return client.RunRaw(ctx, a.namespace, spec, src.Code, opts, in)
				},
			})
			if err != nil {
				if failed := src.failed(); failed != nil {
					return cli.While(failed, "run %s", src.what)
				}
			}
			return err
		},
	}
	flags.add(c)
	calls.add(c)
	c.Flags().StringVarP(&code, "code", "c", "", "`CODE` itself instead of a file; needs -l")
	return c
}

func inlineSource(code, language string) *source {
	filename := extensions[language]
	if filename == "" {
		filename = "main"
	}
	return &source{
		Code: api.Code{Reader: strings.NewReader(code), Filename: filename}, what: "code of -c",
		close: func() {}, failed: func() error { return nil },
	}
}
