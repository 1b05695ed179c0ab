package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/daemon"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// defaultServer is where a server listens unless told otherwise.
const defaultServer = "http://127.0.0.1:8080"

// app is what every command needs: the global flags, and how to print.
type app struct {
	out *cli.Printer

	server    string
	data      string
	namespace string
	keyFile   string
	output    string
	json      bool
	quiet     bool
	verbose   bool
	noColor   bool
	yes       bool

	noKey   string // why no key is sent, once that is known
	keyFrom string // where the key that is sent comes from, once that is known
}

// newApp returns an app that can print errors in the right form even if the arguments turn out
// not to parse.
func newApp(args []string) *app {
	a := &app{}
	a.out = cli.NewPrinter(os.Stdout, os.Stderr, slices.Contains(args, "--no-color"))
	for i, arg := range args {
		if arg == "--" {
			break
		}
		if arg == "--json" || arg == "-ojson" || arg == "--output=json" || (arg == "-o" || arg == "--output") && i+1 < len(args) && args[i+1] == "json" {
			a.out.Format = cli.JSON
		}
	}
	return a
}

func (a *app) flags(f *pflag.FlagSet) {
	f.StringVar(&a.server, "server", defaultServer, "`URL` of the server")
	f.StringVar(&a.data, "data", daemon.DefaultData(), "`DIR` of the server's data; its admin.key is used when the server is on this machine")
	f.StringVarP(&a.namespace, "namespace", "n", "default", "`NAME` of the namespace")
	f.StringVar(&a.keyFile, "key-file", "", "`FILE` that holds the API key; the key itself may be in $BRASA_KEY, never in a flag, where ps shows it")
	f.StringVarP(&a.output, "output", "o", "table", "`FORM` of the data on stdout: table, wide, json, yaml, name")
	f.BoolVar(&a.json, "json", false, "the same as -o json")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "no talk on stderr but errors")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "more talk on stderr")
	f.BoolVar(&a.noColor, "no-color", false, "no colours; $NO_COLOR does the same")
	f.BoolVarP(&a.yes, "yes", "y", false, "answer yes to every question")
}

// envAnnotation names a flag's environment variable where it is not made from its name; an empty
// one says that there is none.
const envAnnotation = "brasa_env"

// envIs sets the environment variable of a flag.
func envIs(c *cobra.Command, flag, name string) {
	// It fails for a flag that is not there only, which is a mistake of ours.
	if err := c.Flags().SetAnnotation(flag, envAnnotation, []string{name}); err != nil {
		panic(err)
	}
}

// envOf returns the environment variable of a flag: BRASA_ and its name for the global ones,
// with the command's name between for its own.
func envOf(c *cobra.Command, f *pflag.Flag) string {
	if name, ok := f.Annotations[envAnnotation]; ok {
		return name[0]
	}
	words := []string{"BRASA"}
	if c.Root().PersistentFlags().Lookup(f.Name) != f {
		words = append(words, strings.Fields(c.CommandPath())[1:]...)
	}
	return strings.ToUpper(strings.ReplaceAll(strings.Join(append(words, f.Name), "_"), "-", "_"))
}

// settle reads the flags that were not given from the environment, and makes the printer what
// the flags say.
func (a *app) settle(c *cobra.Command) error {
	var failed error
	c.Flags().VisitAll(func(f *pflag.Flag) {
		name := envOf(c, f)
		v, ok := os.LookupEnv(name)
		if name == "" || !ok || f.Changed || failed != nil || f.Name == "help" {
			return
		}
		if err := f.Value.Set(v); err != nil {
			failed = cli.Usagef("%s=%s", name, badValue(f, v, err)).WithFix("it stands for --%s; see brasa %s --help", f.Name, c.Name())
		}
	})
	if failed != nil {
		return failed
	}
	format, err := cli.ParseFormat(a.output)
	if err != nil {
		return err
	}
	if a.json {
		format = cli.JSON
	}
	a.out = cli.NewPrinter(os.Stdout, os.Stderr, a.noColor)
	a.out.Format, a.out.Quiet, a.out.Verbose = format, a.quiet, a.verbose
	return faas.ValidateName("namespace", a.namespace)
}

// client returns a client of the server that the flags name, with the key that belongs to it.
func (a *app) client() (*api.Client, error) {
	u, err := url.Parse(a.server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, cli.Usagef("--server %s is not the URL of a server", a.server).WithFix("write it as %s", defaultServer)
	}
	key, err := a.key(u)
	if err != nil {
		return nil, err
	}
	if key != "" && u.Scheme == "http" && !local(u) {
		a.out.Warn("the key goes to %s unencrypted; use https", u.Host)
	}
	return api.NewClient(strings.TrimSuffix(a.server, "/"), key)
}

// local says whether a URL is on this machine.
func local(u *url.URL) bool {
	if u.Hostname() == "localhost" {
		return true
	}
	ip := net.ParseIP(u.Hostname())
	return ip != nil && ip.IsLoopback()
}

// key finds the API key: the file of --key-file, $BRASA_KEY, or the admin key in the data
// directory. The last one is only ever sent to this machine: a key that administers the server
// here is nothing to show to a server elsewhere.
func (a *app) key(server *url.URL) (string, error) {
	if a.keyFile != "" {
		key, err := auth.ReadFile(a.keyFile)
		a.keyFrom = a.keyFile
		return key, cli.While(err, "read the key of --key-file")
	}
	if key := os.Getenv("BRASA_KEY"); key != "" {
		a.keyFrom = "$BRASA_KEY"
		return strings.TrimSpace(key), nil
	}
	if !local(server) {
		a.noKey = "put a key for it into $BRASA_KEY or a file for --key-file; the admin key of this machine is not sent elsewhere"
		return "", nil
	}
	file := adminKey(a.data)
	key, err := auth.ReadFile(file)
	switch {
	case err == nil:
		a.keyFrom = file
		return key, nil
	case errors.Is(err, fs.ErrNotExist):
		a.noKey = fmt.Sprintf("there is no key in $BRASA_KEY, --key-file or %s; say where the server's data is (--data), or ask for a key", file)
	case faas.CodeOf(err) == faas.Denied: // others can read it
		return "", cli.While(err, "read the server's admin key")
	default:
		a.noKey = fmt.Sprintf("there is no key in $BRASA_KEY or --key-file, and the admin key is not to be had: %v", err)
	}
	return "", nil
}

// exactly, atMost and atLeast check the number of arguments and say what is missing by name.
func exactly(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return missing(c, names[len(args)])
		}
		return tooMany(c, args, len(names))
	}
}

func atMost(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error { return tooMany(c, args, n) }
}

func atLeast(name string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return missing(c, name)
		}
		return nil
	}
}

func missing(c *cobra.Command, name string) error {
	return cli.Usagef("%s is missing", name).WithFix("%s", c.UseLine())
}

func tooMany(c *cobra.Command, args []string, n int) error {
	if len(args) > n {
		return cli.Usagef("%q is one argument too many", args[n]).WithFix("%s", c.UseLine())
	}
	return nil
}

// confirm asks a question that only "y" answers with yes. Without a terminal there is nobody to
// ask, and the flag is named instead.
func (a *app) confirm(question string, args ...any) error {
	if a.yes {
		return nil
	}
	question = fmt.Sprintf(question, args...)
	if !interactive() {
		return cli.Usagef("%s there is no terminal to ask at", question).WithFix("say --yes")
	}
	fmt.Fprintf(os.Stderr, "%s [y/N] ", question)
	var answer string
	_, _ = fmt.Scanln(&answer) // no answer is a no
	if !strings.EqualFold(answer, "y") && !strings.EqualFold(answer, "yes") {
		return &cli.QuietError{Exit: cli.ExitInterrupted}
	}
	return nil
}

// adminKey is where a server keeps the key that may do everything.
func adminKey(data string) string { return filepath.Join(data, "admin.key") }
