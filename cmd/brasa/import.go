package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/openwhisk/importer"
)

func newImport(a *app) *cobra.Command {
	return newGroup("import", "Copy what another installation has", nil, newImportOpenWhisk(a))
}

// importFlags say what is copied from where.
type importFlags struct {
	from, auth, authFile      string
	keepKey, insecure, dryRun bool
}

func newImportOpenWhisk(a *app) *cobra.Command {
	var f importFlags
	c := &cobra.Command{
		Use:   "openwhisk --from URL --auth-file FILE",
		Short: "Copy a namespace of an installation of OpenWhisk",
		Long: `Copy packages, bindings, actions, sequences, triggers with their alarms, and rules of a namespace of OpenWhisk
to the namespace that -n names, or to one of the same name. What is there and the same is left alone, what differs is
updated, and nothing is deleted: it can be run again as often as one likes. What could not be kept as it was is told.`,
		Example: `  brasa import openwhisk --from https://whisk.example.com --auth-file auth.guest --dry-run
  brasa import openwhisk --from https://whisk.example.com --auth-file auth.guest --keep-key
  brasa import openwhisk --from https://10.0.0.7 --insecure --auth "$(wsk property get --auth -o raw)" -n shop --json`,
		RunE: func(c *cobra.Command, _ []string) error {
			from, err := f.source()
			if err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			namespace := ""
			if a.namespace != "default" || c.Flags().Changed("namespace") {
				namespace = a.namespace
			}
			begin, done := a.tellImport()
			report, err := f.run(c.Context(), client, from, namespace, begin)
			done()
			if err != nil {
				return cli.While(importFailure(err, from.URL), "import from %s", from.URL)
			}
			if err := a.showImport(report); err != nil {
				return err
			}
			if report.Count(importer.Failed) > 0 {
				return &cli.QuietError{Exit: 1}
			}
			return nil
		},
	}
	s := c.Flags()
	s.StringVar(&f.from, "from", "", "`URL` of the installation's API host")
	s.StringVar(&f.auth, "auth", "", "`UUID:KEY` of the namespace there; ps shows it, --auth-file does not")
	s.StringVar(&f.authFile, "auth-file", "", "`FILE` with UUID:KEY")
	s.BoolVar(&f.keepKey, "keep-key", false, "take the key over too, so that its users change nothing but the host")
	s.BoolVar(&f.insecure, "insecure", false, "do not check the certificate of the installation")
	s.BoolVar(&f.dryRun, "dry-run", false, "tell what would be copied, and what could not be kept as it was")
	return c
}

// tellImport says on a terminal what is copied, and elsewhere what takes long.
func (a *app) tellImport() (begin func(kind, name string), done func()) {
	say, done := a.out.Watch("importing")
	steps := &stepTeller{say: func(step string) { a.out.Say("importing: %s …", step) }}
	if !a.out.ErrTTY {
		end := steps.begin()
		done = end
	}
	return func(kind, name string) {
		step := kind + " " + cli.CleanLine(name)
		say("importing " + step)
		steps.at(step)
	}, done
}

// importFailure says who can mend what kept an import from going on.
func importFailure(err error, from string) error {
	if importer.Denied(err) {
		return faas.Errorf(faas.Unauthenticated, "", "%v", err).WithFix("give the key of a namespace there with --auth-file FILE")
	}
	op, unreached := errors.AsType[*net.OpError](err)
	untrusted, ok := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case ok:
		return &cli.UnreachableError{Server: from, Err: untrusted, Fix: "take its certificate all the same with --insecure, or have it trusted by the environment: SSL_CERT_FILE=CERTIFICATE"}
	case errors.Is(err, http.ErrSchemeMismatch):
		return &cli.UnreachableError{Server: from, Err: http.ErrSchemeMismatch, Fix: "it speaks no TLS; say so: --from " + strings.Replace(from, "https://", "http://", 1)}
	case unreached:
		return &cli.UnreachableError{Server: from, Err: op, Fix: "check the address of --from, and that this machine reaches it"}
	}
	return err
}

// source reads of the flags what is copied from.
func (f *importFlags) source() (importer.Endpoint, error) {
	from := importer.Endpoint{URL: f.from, Auth: f.auth}
	if f.from == "" {
		return from, cli.Usagef("there is nothing to import from").WithFix("name the installation's API host with --from URL")
	}
	if !strings.Contains(from.URL, "://") {
		from.URL = "https://" + from.URL // as wsk reads it
	}
	if u, err := url.Parse(from.URL); err != nil || u.Host == "" {
		return from, cli.Usagef("--from: %q is no URL", f.from)
	}
	if f.authFile != "" {
		b, err := os.ReadFile(f.authFile)
		if err != nil {
			return from, cli.Usagef("--auth-file: %v", err)
		}
		from.Auth = strings.TrimSpace(string(b))
	}
	if uuid, key, ok := strings.Cut(from.Auth, ":"); !ok || uuid == "" || key == "" {
		return from, cli.Usagef("the key of the namespace is UUID:KEY").WithFix("give it with --auth-file FILE, or --auth UUID:KEY")
	}
	if f.insecure {
		from.HTTP = &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // the user asked for it
	}
	return from, nil
}

// run copies, with a key of the target that is made for it.
func (f *importFlags) run(ctx context.Context, client *api.Client, from importer.Endpoint, namespace string, begin func(kind, name string)) (report *importer.Report, err error) {
	to := importer.Endpoint{URL: client.Server()}
	if f.dryRun {
		report, err := importer.Run(ctx, importer.Config{From: from, To: to, DryRun: true, Begin: begin})
		if report.Namespace == "" {
			report.Namespace = namespace
		}
		return report, err
	}
	if namespace == "" {
		if namespace, err = f.sourceNamespace(ctx, client, from); err != nil {
			return nil, err
		}
	}
	subject, spec := "import-"+rand.Text(), api.SubjectSpec{Namespace: namespace}
	if f.keepKey {
		subject = namespace
		if len(subject) < minSubject {
			subject += "@openwhisk"
		}
		spec.UUID, spec.Key, _ = strings.Cut(from.Auth, ":")
	} else {
		// The key is of use for the import alone.
		defer func() {
			err = errors.Join(err, client.DeleteSubject(context.WithoutCancel(ctx), subject, ""))
		}()
	}
	made, err := f.key(ctx, client, to, subject, spec)
	if err != nil {
		return nil, err
	}
	to.Auth = made
	return importer.Run(ctx, importer.Config{From: from, To: to, Begin: begin})
}

// sourceNamespace returns the name that the source gives its namespace, if that may be taken for the target's. The
// source may be in anybody's hands: what is there already under the name may be somebody else's, to whom the
// import, and with --keep-key whoever knows the old key, would have access.
func (f *importFlags) sourceNamespace(ctx context.Context, client *api.Client, from importer.Endpoint) (string, error) {
	name, err := importer.Namespace(ctx, &from)
	if err != nil {
		return "", err
	}
	if f.keepKey {
		here := importer.Endpoint{URL: client.Server(), Auth: from.Auth}
		if own, err := importer.Namespace(ctx, &here); err == nil && own == name {
			return name, nil // an import before this one has taken the key over
		}
	}
	_, err = client.Namespace(ctx, faas.NativeName(name))
	switch {
	case err == nil || name == "whisk.system":
		return "", faas.Errorf(faas.Conflict, "", "%s calls its namespace %q, and there is one of that name here already", from.URL, name).
			WithFix("if it is to go there: -n %s; else name another with -n", name)
	case faas.CodeOf(err) != faas.NotFound:
		return "", err
	}
	return name, nil
}

// minSubject is the length of the shortest name of a subject.
const minSubject = 5

// key makes a key. One that was taken over by an earlier import is good as it is.
func (f *importFlags) key(ctx context.Context, client *api.Client, to importer.Endpoint, subject string, spec api.SubjectSpec) (string, error) {
	if f.keepKey {
		to.Auth = spec.UUID + ":" + spec.Key
		if name, err := importer.Namespace(ctx, &to); err == nil && name == spec.Namespace {
			return to.Auth, nil
		}
	}
	made, err := client.CreateSubject(ctx, subject, spec)
	if err != nil {
		return "", err
	}
	return made.UUID + ":" + made.Key, nil
}

// showImport prints a report.
func (a *app) showImport(r *importer.Report) error {
	var names []string
	g := cli.NewGrid("KIND", "NAME", "OUTCOME", "NOTES")
	for _, e := range r.Entities {
		names = append(names, e.Name)
		first := ""
		if len(e.Notes) > 0 {
			first = e.Notes[0]
		}
		g.Row(e.Kind, cli.CleanLine(e.Name), string(e.Outcome), cli.CleanLine(first))
		for _, n := range e.Notes[min(1, len(e.Notes)):] {
			g.Row("", "", "", cli.CleanLine(n))
		}
	}
	if err := a.list(r, names, g, "the namespace is empty"); err != nil {
		return err
	}
	var counts []string
	for _, o := range []importer.Outcome{importer.Created, importer.Updated, importer.Unchanged, importer.Planned, importer.Skipped, importer.Failed} {
		if n := r.Count(o); n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", n, o))
		}
	}
	if len(counts) > 0 {
		a.out.Say("%s", strings.Join(counts, ", "))
	}
	return nil
}
