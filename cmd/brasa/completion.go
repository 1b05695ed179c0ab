package main

import (
	"context"
	"slices"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/spf13/cobra"
)

func newCompletion(_ *app) *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print the completion script for a shell",
		Long: `Print the completion script for a shell. It completes commands, flags, and live names:
functions, revisions, secrets and the newest calls.`,
		Example: `  source <(brasa completion bash)
  brasa completion zsh > "${fpath[1]}/_brasa"
  brasa completion fish > ~/.config/fish/completions/brasa.fish
  brasa completion powershell | Out-String | Invoke-Expression`,
		Args:      exactly("SHELL"),
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(c *cobra.Command, args []string) error {
			root, out := c.Root(), c.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(out)
			}
			return cli.Usagef("no completion for %q", args[0]).WithFix("bash, zsh, fish or powershell")
		},
	}
}

// completionWait bounds what a person waits for after the Tab key.
const completionWait = time.Second

// complete asks the server for names. Without a server there are none; a shell that waits for a
// completion is no place for an error.
func (a *app) complete(c *cobra.Command, names func(context.Context, *api.Client) []cobra.Completion) ([]cobra.Completion, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	if a.settle(c) != nil {
		return nil, none
	}
	client, err := a.client()
	if err != nil {
		return nil, none
	}
	ctx, cancel := context.WithTimeout(c.Context(), completionWait)
	defer cancel()
	return names(ctx, client), none
}

func (a *app) completeFunctions(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 && c.Name() != "rm" {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.complete(c, func(ctx context.Context, client *api.Client) (names []cobra.Completion) {
		functions, _ := client.Functions(ctx, a.namespace)
		for _, f := range functions {
			names = append(names, cobra.CompletionWithDesc(f.Name, f.Runtime))
		}
		return names
	})
}

func (a *app) completeRevisions(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.complete(c, func(ctx context.Context, client *api.Client) (ids []cobra.Completion) {
		if len(args) == 0 {
			return nil
		}
		fn, err := a.function(args[0])
		if err != nil {
			return nil
		}
		revisions, _ := client.Revisions(ctx, fn.Namespace, fn.Path())
		for _, r := range revisions {
			desc := cli.Ago(r.Created, time.Now())
			if r.Active {
				desc += ", active"
			}
			ids = append(ids, cobra.CompletionWithDesc(r.ID.Short(), desc))
		}
		return ids
	})
}

func (a *app) completeSecrets(c *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.complete(c, func(ctx context.Context, client *api.Client) (names []cobra.Completion) {
		secrets, _ := client.Secrets(ctx, a.namespace)
		for _, s := range secrets {
			names = append(names, s.Name)
		}
		return names
	})
}

func (a *app) completeSubjects(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.complete(c, func(ctx context.Context, client *api.Client) (names []cobra.Completion) {
		subjects, _ := client.Subjects(ctx)
		for _, s := range subjects {
			names = append(names, s.Subject)
		}
		return names
	})
}

// completeSpaces completes namespaces by the names that OpenWhisk's clients have for them.
func (a *app) completeSpaces(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.complete(c, func(ctx context.Context, client *api.Client) (names []cobra.Completion) {
		subjects, _ := client.Subjects(ctx)
		for _, s := range subjects {
			for _, k := range s.Namespaces {
				names = append(names, k.Namespace)
			}
		}
		slices.Sort(names)
		return slices.Compact(names)
	})
}

// completeNamespaces completes a flag's value.
func (a *app) completeNamespaces(c *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.complete(c, func(ctx context.Context, client *api.Client) (names []cobra.Completion) {
		namespaces, _ := client.Namespaces(ctx)
		for _, n := range namespaces {
			names = append(names, n.Name)
		}
		return names
	})
}

func (a *app) completeNamespace(c *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeNamespaces(c, args, typed)
}

func (a *app) completeActivations(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.complete(c, func(ctx context.Context, client *api.Client) (ids []cobra.Completion) {
		page, _ := client.Activations(ctx, a.namespace, api.Query{Limit: 20})
		ids = append(ids, cobra.CompletionWithDesc("last", "the newest call"))
		for _, act := range page.Activations {
			ids = append(ids, cobra.CompletionWithDesc(string(act.ID), functionOf(&act)+" "+act.Outcome.String()))
		}
		return ids
	})
}

// completeFlag registers a completion. It fails for a flag that is not there only, which is a
// mistake of ours.
func completeFlag(c *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := c.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(err)
	}
}
