package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/spf13/cobra"
)

func newDeploy(a *app) *cobra.Command {
	var flags specFlags
	var name, image string
	var public bool
	c := &cobra.Command{
		Use:     "deploy PATH|NAME [flags]",
		Aliases: []string{"up", "push"},
		Short:   "Make a function of a file, a directory, an archive or stdin",
		Long: `Make a function of code: a file of source, an executable, a module of WebAssembly, a
directory, a zip, tar or tar.gz, or - for stdin. The code is started once before it takes
over; if that fails, what was deployed before goes on serving.

A directory is sent without what its .brasaignore names (patterns as in .gitignore), and
without .git, .env, virtual environments and caches. A brasa.json in it may say what flags say
(language, entry, handler, command, env, secrets, limits, network, install, warm, async,
prefetch); flags win.

What the code's own manifest names (requirements.txt, uv.lock, package.json, go.mod, Cargo.toml,
pom.xml ...) is installed on the server, once for all functions with the same lock.

With --image the function is an OCI image: a name that the server fetches, a tar that docker save
wrote, or an OCI layout directory. What it runs is what the image says; --command takes the place of
the image's arguments and --entry that of its entrypoint. The argument is then the function's name,
or a path (./ in front) to code that is mounted beside the image at /code.`,
		Example: `  brasa deploy hello.py
  brasa deploy ./shop --name pay --memory 512MiB --timeout 10s
  brasa deploy resize.zip -e QUALITY=80 --secret S3_KEY --network egress
  brasa deploy ./server --command './server --quiet' -l http --public
  brasa deploy report.py --with 'pandas<3' --with openpyxl
  cat hello.py | brasa deploy - -l python --name hello
  brasa deploy web --image ghcr.io/owner/web:1.2
  brasa deploy thumb --image thumb.tar -l exec --command 'convert - -resize 64x64 -'`,
		Args: func(c *cobra.Command, args []string) error {
			if image != "" && len(args) == 0 {
				return nil
			}
			return exactly("PATH")(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			spec, err := flags.spec(a)
			if err != nil {
				return err
			}
			if c.Flags().Changed("public") {
				spec.Public = &public
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			var src *source
			if image != "" {
				src, err = imageSource(image, args, c.Flags().Changed("name"), flags.language, &spec)
			} else {
				src, err = openSource(args[0], flags.language)
			}
			if err != nil {
				return err
			}
			defer src.close()
			if name == "" {
				name = src.name
			}
			if name == "" {
				return cli.Usagef("the function has no name").WithFix("--name NAME")
			}
			return a.deploy(c.Context(), client, name, spec, src)
		},
	}
	flags.add(c)
	flags.addKeeping(c)
	c.Flags().StringVar(&image, "image", "", "the `IMAGE` that it runs in: a name to fetch, a tar of docker save, or an OCI layout directory")
	c.Flags().StringVar(&name, "name", "", "`NAME` of the function; the file's or directory's when left out")
	c.Flags().BoolVar(&public, "public", false, "its own URL may be called without a key")
	return c
}

func (a *app) deploy(ctx context.Context, client *api.Client, name string, spec api.Spec, src *source) error {
	fn, err := a.function(name)
	if err != nil {
		return err
	}
	begin := time.Now()
	outcome, err := a.sendFollowed(ctx, client, fn, spec, src)
	if err != nil {
		return cli.While(err, "deploy %s as %q", src.what, fn.Path())
	}
	return a.out.Data(outcome, func(w io.Writer) error {
		if a.out.Format == cli.Names {
			_, err := fmt.Fprintln(w, outcome.Function.Name)
			return err
		}
		_, err := io.WriteString(w, a.describeDeploy(fn, outcome, tryInput(src), time.Since(begin)))
		return err
	})
}

// tryInput is what the command that is suggested after a deploy calls the function with.
func tryInput(src *source) string {
	if file := inputOf(src.what); file != "" {
		return "@" + file
	}
	return "'{}'"
}

// send deploys src and calls told, which may be nil, with what happens meanwhile. If reading it
// failed, that is the reason, whatever the server said of the half it got.
func send(ctx context.Context, client *api.Client, fn faas.Name, spec api.Spec, src *source, told func(api.DeployEvent)) (outcome *api.Outcome, err error) {
	if told == nil {
		outcome, err = client.Deploy(ctx, fn.Namespace, fn.Path(), spec, src.Code)
	} else {
		outcome, err = client.DeployFollowed(ctx, fn.Namespace, fn.Path(), spec, src.Code, told)
	}
	if err != nil {
		if failed := src.failed(); failed != nil {
			return nil, failed
		}
	}
	return outcome, err
}

func (a *app) describeDeploy(fn faas.Name, o *api.Outcome, input string, took time.Duration) string {
	s := a.out.OutStyles()
	var b strings.Builder
	line := func(label, format string, args ...any) {
		b.WriteString(s.Faint.Render(fmt.Sprintf("%-9s", label)) + fmt.Sprintf(format, args...) + "\n")
	}
	d := o.Detected
	what := strings.TrimSpace(d.Language + " " + d.Version)
	switch {
	case len(d.Command) > 0:
		what += ", " + strings.Join(d.Command, " ")
	case d.Entry != "" && d.Handler != "":
		what += ", " + d.Entry + ":" + d.Handler
	case d.Entry != "":
		what += ", " + d.Entry
	}
	line("function", "%s", s.Strong.Render(fn.Path()))
	line("found", "%s%s", what, parenthesis(d.Why))
	if o.Code > 0 || o.Function.Active.Image == nil {
		line("size", "%s of code, %s sent", cli.Size(o.Code), cli.Size(o.Sent))
	}
	for _, st := range o.Steps {
		if st.Image != nil {
			imageLines(line, st)
		}
		if st.Install != nil {
			line("packages", "%s", installLine(st))
		}
	}
	if o.Same && o.Proof.Timing.Total < ready {
		line("proof", "an instance is ready already")
	} else {
		line("proof", "%s", proofLine(o.Proof))
	}
	for _, st := range o.Steps {
		for _, t := range st.Code {
			line("ready", "%s", treeLine(t))
		}
	}
	revision := o.Revision.Short()
	switch {
	case o.Same:
		revision += "  (unchanged)"
	case o.Previous != "":
		revision += "  (was " + o.Previous.Short() + ")"
	}
	line("revision", "%s", revision)
	line("url", "%s", s.Accent.Render(o.URL))
	brasa, _ := selfCommand()
	line("try", "%s invoke %s%s -d %s", brasa, fn.Path(), a.namespaceFlag(), input)
	switch {
	case o.Created:
		line("undo", "%s rm %s%s", brasa, fn.Path(), a.namespaceFlag())
	case o.Previous != "" && !o.Same:
		line("undo", "%s rollback %s%s", brasa, fn.Path(), a.namespaceFlag())
	}
	line("done", "in %s", seconds(took))
	return b.String()
}

// ready is the time below which no instance was started: one of the same revision was idle.
const ready = time.Millisecond

// proofLine says what starting the revision once showed.
func proofLine(p faas.Proof) string {
	var parts []string
	for _, phase := range p.Timing.Phases() {
		switch phase.Name {
		case faas.PhaseRuntimeLoad.String(), faas.PhaseDependencies.String(), faas.PhaseCodeLoad.String():
			name, _, _ := strings.Cut(phase.Name, "_")
			parts = append(parts, name+" "+cli.Took(time.Duration(phase.US)*time.Microsecond))
		}
	}
	text := "started in " + cli.Took(p.Timing.Total)
	if len(parts) > 0 {
		text += " (" + strings.Join(parts, ", ") + ")"
	}
	if p.Memory > 0 {
		text += ", " + cli.Size(p.Memory) + " of memory"
	}
	return text
}

func parenthesis(s string) string {
	if s == "" {
		return ""
	}
	return "  (" + s + ")"
}

// seconds prints a time span in seconds with two digits behind the point.
func seconds(d time.Duration) string { return fmt.Sprintf("%.2fs", d.Seconds()) }

// namespaceFlag is the flag that a suggested command needs, if any.
func (a *app) namespaceFlag() string {
	if a.namespace == "default" {
		return ""
	}
	return " -n " + a.namespace
}

// function reads a function's name in the forms that people write it.
func (a *app) function(s string) (faas.Name, error) { return faas.ParseName(s, a.namespace) }
