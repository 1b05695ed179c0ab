package main

import (
	"fmt"
	"strings"

	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/spf13/cobra"
)

// topic explains an error code.
type topic struct {
	code string
	exit int
	line string // in the list
	text string
}

var topics = []topic{
	{"failed", cli.ExitFunction, "the function returned or threw an error", `The function ran and failed by itself: it raised or threw an error, could not be loaded, or
answered something that its contract does not allow. The message and the trace are the
function's own; file and line are those of your code.

  brasa inv get last          the record, with the trace and what the function wrote
  brasa logs NAME             what it wrote before
  brasa rollback NAME         the revision before, if that one worked`},
	{"crashed", cli.ExitFunction, "the function's process died", `The function's process ended in the middle of a call: it called exit, got a signal, or ran
out of memory. Out of memory means that all its processes together, with what is in /tmp and
/dev/shm, needed more than its limit.

  brasa trace last                    how much memory there was at the peak
  brasa deploy PATH --memory 1GiB     a higher limit`},
	{"timeout", cli.ExitTimeout, "the call took too long", `The call did not end before its deadline, waiting and loading included; the function's
processes were killed. The deadline is the function's --timeout, or an earlier one that the
caller asked for.

  brasa trace last                    where the time went
  brasa deploy PATH --timeout 2m      a longer limit`},
	{"invalid", cli.ExitUsage, "the request makes no sense to the server", `The server understood the request but can't do what it asks: a name with characters that are
not allowed, a limit above the ceiling, code in which no function is found. The message says
which; "limit" names the limit's key.`},
	{"usage", cli.ExitUsage, "the command line makes no sense", `A flag or an argument is wrong or missing, a file is not there, or an answer is needed and no
terminal to ask at. Nothing was sent to the server.

  brasa COMMAND --help`},
	{"unreachable", cli.ExitUnreachable, "no server answers", `No server answers at the address of --server or $BRASA_SERVER.

  brasa serve                 start one here (or brasa dev, while you write)
  brasa doctor                what this machine allows`},
	{"unauthenticated", cli.ExitDenied, "no key, or one the server does not know", `The server wants a key and got none, or one that it does not know or that was revoked. The
key is looked for in this order: the file of --key-file, $BRASA_KEY, the file of
$BRASA_KEY_FILE, and, for a server on this machine, admin.key in its data directory (--data
or $BRASA_DATA), which only the server's own user can read.

  brasa key create -n NAMESPACE     ask whoever may to make one for you`},
	{"denied", cli.ExitDenied, "the key may not do this", `The key is known but may not do this, such as making namespaces. What is in a namespace that
your key does not open is not there as far as you are told.`},
	{"not_found", cli.ExitNotFound, "there is no such thing", `No function, revision, call, secret, key or namespace of that name, or none that your key may
know of. Names live in a namespace: see -n and $BRASA_NAMESPACE.

  brasa ls
  brasa namespace ls`},
	{"conflict", cli.ExitConflict, "it exists already, or moved since it was read", `It exists already, or someone else changed it at the same time. Look at it again, then decide.`},
	{"too_large", cli.ExitLimit, "code, input or answer is over its limit", `The code, the input or the answer has more bytes than its limit; "limit" names which.

  brasa describe NAME         the function's limits
  .brasaignore                what of a directory is not to be sent`},
	{"overloaded", cli.ExitLimit, "too much at once; later it may work", `A quota or a queue is full: the function's, the namespace's or the machine's. Nothing ran. The
server says how long to wait.

  brasa deploy PATH --max-instances N --concurrency N`},
	{"canceled", cli.ExitInterrupted, "the caller went away", `The caller closed the connection before the answer was there; the function was told.`},
	{"interrupted", cli.ExitInterrupted, "Ctrl-C", `The command was ended by Ctrl-C or a signal.`},
	{"unavailable", cli.ExitPlatform, "the server can't do this now, or not on this machine", `The server can't do this now, or not on this machine: a language is not installed, the kernel
lacks what was promised, the server is stopping. The message says which.

  brasa doctor`},
	{"internal", cli.ExitPlatform, "a defect of the platform", `Something broke inside the platform. It is not your function's fault. The request's id is in the
server's log.`},
}

func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND|errors|CODE]",
		Short: "Explain a command, or an error by its code",
		Example: `  brasa help deploy
  brasa help errors
  brasa help not_found`,
		Args: cobra.ArbitraryArgs,
		ValidArgsFunction: func(c *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			names := []cobra.Completion{"errors"}
			for _, s := range c.Root().Commands() {
				if s.IsAvailableCommand() {
					names = append(names, cobra.CompletionWithDesc(s.Name(), s.Short))
				}
			}
			for _, t := range topics {
				names = append(names, cobra.CompletionWithDesc(t.code, t.line))
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			root, out := c.Root(), c.OutOrStdout()
			if len(args) == 0 {
				return root.Help()
			}
			if args[0] == "errors" || args[0] == "exit-codes" {
				_, err := fmt.Fprint(out, errorList())
				return err
			}
			code := strings.ReplaceAll(strings.ToLower(args[0]), "-", "_")
			for _, t := range topics {
				if t.code == code {
					_, err := fmt.Fprintf(out, "%s: %s (exit code %d)\n\n%s\n", t.code, t.line, t.exit, cli.Fill(t.text, helpWidth()))
					return err
				}
			}
			found, rest, err := root.Find(args)
			if err != nil || found == root || len(rest) > 0 && found.HasSubCommands() {
				return unknownTopic(root, args[0])
			}
			return found.Help()
		},
	}
}

func unknownTopic(root *cobra.Command, name string) error {
	var names []string
	for _, c := range root.Commands() {
		names = append(append(names, c.Name()), c.Aliases...)
	}
	for _, t := range topics {
		names = append(names, t.code)
	}
	e := cli.Usagef("there is no help about %q", name)
	if meant := cli.Suggest(name, names); meant != "" {
		return e.WithFix("did you mean: brasa help %s", meant)
	}
	return e.WithFix("brasa help, or brasa help errors")
}

func errorList() string {
	var b strings.Builder
	b.WriteString("EXIT  CODE             WHAT\n   0  ok               it worked\n")
	for _, t := range topics {
		fmt.Fprintf(&b, "%4d  %-16s %s\n", t.exit, t.code, t.line)
	}
	fmt.Fprintf(&b, "%4d  %-16s %s\n", cli.ExitProblems, "-", "doctor found problems")
	b.WriteString("\nMore about one: brasa help CODE\n")
	return b.String()
}
