package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
)

func newSubject(a *app) *cobra.Command {
	return newGroup("subject", "Make and block those who use OpenWhisk's clients", []string{"subjects"},
		newSubjectCreate(a), newSubjectLs(a), newSubjectGet(a), newSubjectBlock(a, true), newSubjectBlock(a, false), newSubjectLimits(a), newSubjectRm(a))
}

func newSubjectCreate(a *app) *cobra.Command {
	var spec api.SubjectSpec
	var of, authFile string
	c := &cobra.Command{
		Use:     "create NAME [flags]",
		Aliases: []string{"add"},
		Short:   "Make a key with which wsk and its like work",
		Long: `Make a key of OpenWhisk's kind, a UUID and 64 characters, for a namespace, which is made if there is none.
It is shown this once.`,
		Example: `  wsk property set --apihost http://127.0.0.1:8080 --auth "$(brasa subject create guest -o name)"
  brasa subject create ada@example.com --of shop
  brasa subject create guest --auth-file auth.guest   # takes over a key of another installation`,
		Args: exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			spec.Namespace = of
			if authFile != "" {
				b, err := os.ReadFile(authFile)
				if err != nil {
					return cli.Usagef("--auth-file: %v", err)
				}
				uuid, key, ok := strings.Cut(strings.TrimSpace(string(b)), ":")
				if !ok {
					return cli.Usagef("--auth-file: %s does not hold UUID:KEY", authFile)
				}
				spec.UUID, spec.Key = uuid, key
			}
			made, err := client.CreateSubject(c.Context(), args[0], spec)
			if err != nil {
				return cli.While(err, "make a key for subject %q", args[0])
			}
			return a.out.Data(made, func(w io.Writer) error {
				if a.out.Format != cli.Names {
					a.out.Say("key of %s for namespace %s; it is shown this once:", made.Subject, made.Namespace)
				}
				_, err := fmt.Fprintln(w, made.UUID+":"+made.Key)
				return err
			})
		},
	}
	c.Flags().StringVar(&of, "of", "", "`NAMESPACE` that the key opens; the subject's name when left out")
	c.Flags().StringVar(&authFile, "auth-file", "", "`FILE` with UUID:KEY, taken over instead of making a new one")
	c.Flags().BoolVar(&spec.Replace, "force", false, "replace the key that the subject has for the namespace")
	return c
}

func newSubjectLs(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List who has keys of OpenWhisk's kind",
		Example: "  brasa subject ls",
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			subjects, err := client.Subjects(c.Context())
			if err != nil {
				return cli.While(err, "list subjects")
			}
			var names []string
			g := cli.NewGrid("SUBJECT", "NAMESPACES", "BLOCKED", "CREATED")
			for _, s := range subjects {
				names = append(names, s.Subject)
				blocked := ""
				if s.Blocked {
					blocked = "yes"
				}
				g.Row(cli.CleanLine(s.Subject), cli.CleanLine(spaces(s)), blocked, cli.Ago(s.Created, a.out.Now()))
			}
			return a.list(map[string]any{"subjects": subjects}, names, g, "no subjects; make one with: brasa subject create NAME")
		},
	}
}

func spaces(s api.Subject) string {
	var all []string
	for _, k := range s.Namespaces {
		all = append(all, k.Namespace)
	}
	return strings.Join(all, ", ")
}

func newSubjectGet(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "get NAME",
		Aliases:           []string{"show"},
		Short:             "Show a subject and the namespaces it has keys of",
		Example:           "  brasa subject get guest",
		ValidArgsFunction: a.completeSubjects,
		Args:              exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			s, err := client.Subject(c.Context(), args[0])
			if err != nil {
				return cli.While(err, "look up subject %q", args[0])
			}
			g := cli.NewGrid("NAMESPACE", "UUID", "CREATED")
			var names []string
			for _, k := range s.Namespaces {
				names = append(names, k.Namespace)
				g.Row(cli.CleanLine(k.Namespace), k.UUID, cli.Ago(k.Created, a.out.Now()))
			}
			if s.Blocked {
				a.out.Say("%s is blocked", s.Subject)
			}
			return a.list(s, names, g, "no keys")
		},
	}
}

func newSubjectBlock(a *app, block bool) *cobra.Command {
	use, short := "block", "Have a subject's keys not taken from now on"
	if !block {
		use, short = "unblock", "Have a subject's keys taken again"
	}
	return &cobra.Command{
		Use:               use + " NAME",
		Short:             short,
		Example:           "  brasa subject " + use + " guest",
		ValidArgsFunction: a.completeSubjects,
		Args:              exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			s, err := client.BlockSubject(c.Context(), args[0], block)
			if err != nil {
				return cli.While(err, "%s subject %q", use, args[0])
			}
			return a.out.Data(s, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%sed %s\n", use, s.Subject)
				return err
			})
		},
	}
}

func newSubjectLimits(a *app) *cobra.Command {
	var invocations, concurrent, fires int
	var kinds []string
	var hide, reset bool
	c := &cobra.Command{
		Use:   "limits NAMESPACE [flags]",
		Short: "Show or set what a namespace may do by OpenWhisk's API",
		Long:  "Show the limits that a namespace has in place of the server's, or set some; the others stay as they are.",
		Example: `  brasa subject limits guest
  brasa subject limits guest --invocations 600 --concurrent 100
  brasa subject limits guest --reset`,
		Args:              exactly("NAMESPACE"),
		ValidArgsFunction: a.completeSpaces,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			l, err := client.SpaceLimits(c.Context(), args[0])
			if err != nil {
				return cli.While(err, "read the limits of %q", args[0])
			}
			if reset {
				l = api.SpaceLimits{}
			}
			f, changed := c.Flags(), reset
			for name, to := range map[string]func(){
				"invocations": func() { l.Invocations = &invocations }, "concurrent": func() { l.Concurrent = &concurrent }, "fires": func() { l.Fires = &fires },
				"kinds": func() { l.Kinds = kinds }, "hide-activations": func() { l.Hidden = hide },
			} {
				if f.Changed(name) {
					to()
					changed = true
				}
			}
			if changed {
				if l, err = client.PutSpaceLimits(c.Context(), args[0], l); err != nil {
					return cli.While(err, "set the limits of %q", args[0])
				}
			}
			g := cli.NewGrid("LIMIT", "VALUE")
			row := func(name string, n *int) {
				if n == nil {
					g.Row(name, "the server's")
				} else {
					g.Row(name, fmt.Sprint(*n))
				}
			}
			row("invocations per minute", l.Invocations)
			row("concurrent invocations", l.Concurrent)
			row("fires per minute", l.Fires)
			g.Row("kinds", orText(strings.Join(l.Kinds, ", "), "all"))
			g.Row("activations", map[bool]string{true: "hidden", false: "shown"}[l.Hidden])
			return a.list(l, []string{args[0]}, g, "")
		},
	}
	f := c.Flags()
	f.IntVar(&invocations, "invocations", 0, "calls in a minute of the clock")
	f.IntVar(&concurrent, "concurrent", 0, "calls at once")
	f.IntVar(&fires, "fires", 0, "fires of triggers in a minute of the clock")
	f.StringSliceVar(&kinds, "kinds", nil, "kinds of actions that it may make and call; empty: all")
	f.BoolVar(&hide, "hide-activations", false, "show no records of its calls")
	f.BoolVar(&reset, "reset", false, "have the server's limits count before the others are set")
	return c
}

func orText(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func newSubjectRm(a *app) *cobra.Command {
	var of string
	c := &cobra.Command{
		Use:               "rm NAME [flags]",
		Aliases:           []string{"delete", "remove"},
		Short:             "Delete a subject or its key of one namespace; what is in the namespace stays",
		Example:           "  brasa subject rm guest\n  brasa subject rm guest --of shop",
		ValidArgsFunction: a.completeSubjects,
		Args:              exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			if err := client.DeleteSubject(c.Context(), args[0], of); err != nil {
				return cli.While(err, "delete subject %q", args[0])
			}
			return a.deleted(args[0])
		},
	}
	c.Flags().StringVar(&of, "of", "", "`NAMESPACE` whose key is deleted; all when left out")
	completeFlag(c, "of", func(c *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return a.completeSpaces(c, nil, typed)
	})
	return c
}
