package main

import (
	"errors"
	"os"
	"strings"

	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/charmbracelet/x/term"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Groups of commands, in the order a newcomer meets them.
const (
	groupStart   = "start"
	groupCode    = "code"
	groupLook    = "look"
	groupManage  = "manage"
	groupProgram = "program"
)

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "brasa",
		Short: "Functions as a service, in one program",
		Long: `Brasa runs functions: you give it code in any language, it gives you a URL.

  brasa serve                       start a server here
  brasa init hello -l python        two files to begin with
  brasa deploy hello                the code becomes a function
  brasa invoke hello -d '{"name":"Ada"}'

or, while you write: brasa dev`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          group,
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			return a.settle(c)
		},
	}
	a.flags(root.PersistentFlags())
	completeFlag(root, "namespace", a.completeNamespaces)
	root.AddGroup(
		&cobra.Group{ID: groupStart, Title: "Begin:"},
		&cobra.Group{ID: groupCode, Title: "Code:"},
		&cobra.Group{ID: groupLook, Title: "See what happened:"},
		&cobra.Group{ID: groupManage, Title: "Manage:"},
		&cobra.Group{ID: groupProgram, Title: "This program:"},
	)
	add := func(id string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	add(groupStart, newServe(a), newDev(a), newInit(a))
	add(groupCode, newDeploy(a), newSequence(a), newInvoke(a), newRun(a), newLs(a), newDescribe(a), newVersions(a), newRollback(a), newRm(a))
	add(groupLook, newLogs(a), newInv(a), newTrace(a), newBuilds(a), newNodes(a), newSimulate(a), newBench(a))
	add(groupLook, newQueue(a), newDlq(a))
	add(groupManage, newTrigger(a), newSecret(a), newNamespace(a), newKey(a), newSubject(a), newImport(a))
	add(groupProgram, newDoctor(a), newConfig(a), newVersion(a), newCompletion(a), newHelp())
	root.SetHelpCommandGroupID(groupProgram)
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(flagError)
	cobra.EnableCommandSorting = false // they stand in the order in which one needs them
	cobra.AddTemplateFunc("flagsWithEnv", flagsWithEnv)
	cobra.AddTemplateFunc("aliases", func(c *cobra.Command) string { return strings.Join(c.Aliases, ", ") })
	cobra.AddTemplateFunc("fill", func(s string) string { return cli.Fill(s, helpWidth()) })
	root.SetHelpTemplate(helpTemplate)
	root.SetUsageTemplate(usageTemplate)
	walk(root, func(c *cobra.Command) {
		c.DisableFlagsInUseLine = true
		if c.Args == nil {
			c.Args = atMost(0)
		}
	})
	return root
}

// group is what a command does that only holds others: it shows them, or says which one was
// meant.
func group(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	var names []string
	for _, s := range c.Commands() {
		if !s.Hidden {
			names = append(append(names, s.Name()), s.Aliases...)
		}
	}
	e := cli.Usagef("%q is no command of %s", args[0], c.CommandPath())
	if meant := cli.Suggest(args[0], names); meant != "" {
		return e.WithFix("did you mean: %s %s", c.CommandPath(), meant)
	}
	return e.WithFix("%s --help", c.CommandPath())
}

// newGroup returns a command that only holds others.
func newGroup(use, short string, aliases []string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Aliases: aliases, Args: cobra.ArbitraryArgs, RunE: group}
	c.AddCommand(commands...)
	return c
}

func flagError(c *cobra.Command, err error) error {
	if x, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return cli.Usagef("--%s %s", x.GetFlag().Name, badValue(x.GetFlag(), x.GetValue(), x.Unwrap()))
	}
	e := cli.Usagef("%s", err)
	if name, ok := strings.CutPrefix(err.Error(), "unknown flag: --"); ok {
		var names []string
		visible := func(f *pflag.Flag) { names = append(names, f.Name) }
		c.Flags().VisitAll(visible)
		c.InheritedFlags().VisitAll(visible)
		if meant := cli.Suggest(name, names); meant != "" {
			return e.WithFix("did you mean: --%s", meant)
		}
	}
	return e.WithFix("%s --help", c.CommandPath())
}

// badValue says what is wrong with a flag's value, beginning with that.
func badValue(f *pflag.Flag, value string, err error) string {
	what := map[string]string{
		"duration": "no time; write it as 500ms, 30s or 5m", "int": "no whole number", "uint64": "no whole number",
		"float64": "no number", "bool": "neither true nor false",
	}[f.Value.Type()]
	if what == "" || errors.Is(err, errNotPositive) {
		return value + ": " + err.Error()
	}
	return value + " is " + what
}

// errNotPositive is what is wrong with a flag that was given nothing as its number.
var errNotPositive = errors.New("it must be more than 0; leave it out for the default")

// positive makes flags refuse 0 and less. A 0 would mean the default, which is not what who writes it
// expects.
func positive(set *pflag.FlagSet, names ...string) {
	for _, name := range names {
		f := set.Lookup(name)
		f.Value, f.DefValue = positiveValue{f.Value}, ""
	}
}

type positiveValue struct{ pflag.Value }

func (v positiveValue) Set(s string) error {
	if err := v.Value.Set(s); err != nil {
		return err
	}
	if now := v.Value.String(); strings.HasPrefix(now, "-") || now == "0" || now == "0s" {
		return errNotPositive
	}
	return nil
}

func walk(c *cobra.Command, do func(*cobra.Command)) {
	do(c)
	for _, s := range c.Commands() {
		walk(s, do)
	}
}

// flagsWithEnv prints a command's flags, each with its environment variable.
func flagsWithEnv(c *cobra.Command, set *pflag.FlagSet) string {
	out := pflag.NewFlagSet("", pflag.ContinueOnError)
	out.SortFlags = false
	set.VisitAll(func(f *pflag.Flag) {
		shown := *f
		if name := envOf(c, f); f.Name != "help" && name != "" {
			shown.Usage += " [$" + name + "]"
		}
		out.AddFlag(&shown)
	})
	return strings.TrimRight(out.FlagUsagesWrapped(helpWidth()), "\n")
}

// helpWidth is how wide help may be: as the terminal is. Elsewhere nothing is broken anew.
func helpWidth() int {
	if w, _, err := term.GetSize(os.Stdout.Fd()); err == nil && w > 0 {
		return max(w, 40)
	}
	return 0
}

const helpTemplate = "{{with or .Long .Short}}{{fill .}}\n\n{{end}}{{.UsageString}}"

const usageTemplate = `Usage:
  {{if .HasAvailableSubCommands}}{{.CommandPath}} COMMAND{{else}}{{.UseLine}}{{end}}
{{- if .Aliases}}

Also: {{aliases .}}{{end}}
{{- if .HasExample}}

Examples:
{{.Example}}{{end}}
{{- if .HasAvailableSubCommands}}{{$cmds := .Commands}}{{if eq (len .Groups) 0}}

Commands:{{range $cmds}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{else}}{{range $group := .Groups}}

{{.Title}}{{range $cmds}}{{if and (eq .GroupID $group.ID) .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{end}}{{end}}
{{- with flagsWithEnv . .LocalNonPersistentFlags}}

Flags:
{{.}}{{end}}
{{- if not .HasParent}}

Flags of every command:
{{flagsWithEnv . .PersistentFlags}}{{else}}

Flags of every command (-n, -o, --json, -q, -v ...): brasa --help{{end}}
`

// interactive says whether a person can be asked: both ends are terminals.
func interactive() bool {
	return term.IsTerminal(os.Stdin.Fd()) && term.IsTerminal(os.Stderr.Fd())
}
