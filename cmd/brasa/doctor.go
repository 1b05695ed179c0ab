package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
	"github.com/spf13/cobra"
)

func newDoctor(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "doctor",
		Aliases: []string{"check"},
		Short:   "Examine this machine: what confines functions, which languages there are",
		Long: `Examine this machine: what of the kernel's means to confine a function can be had by this
user, what is lost without each, and which languages can run. A server that answers is
examined too. The exit code is 10 if something required is missing.`,
		Example: "  brasa doctor\n  brasa doctor --json | jq '.data.checks[] | select(.ok | not)'",
		RunE: func(c *cobra.Command, _ []string) error {
			report := a.examine(c.Context())
			err := a.out.Data(report, func(w io.Writer) error { return a.drawReport(w, report) })
			if err == nil && !report.OK {
				return &cli.QuietError{Exit: cli.ExitProblems}
			}
			return err
		},
	}
}

// examination is what doctor found.
type examination struct {
	OK       bool          `json:"ok"` // nothing that is required is missing
	Checks   []api.Check   `json:"checks"`
	Runtimes []api.Runtime `json:"runtimes"`
	Server   serverReport  `json:"server"`
}

// serverReport is what a server that answers says of itself. It may be on another machine.
type serverReport struct {
	URL    string      `json:"url"`
	Answer string      `json:"answer"` // its version, or why there is none
	Checks []api.Check `json:"checks,omitempty"`
}

func (a *app) examine(ctx context.Context) examination {
	e := examination{OK: true, Server: serverReport{URL: a.server}}
	for _, f := range sandbox.Probe() {
		e.Checks = append(e.Checks, api.Check{Name: f.Name, OK: f.Have, Required: f.Required, Detail: f.Detail, Lost: f.Lost, Fix: f.Fix})
	}
	if err := e.findLanguages(ctx); err != nil {
		e.Checks = append(e.Checks, api.Check{Name: "languages", Required: true, Detail: err.Error()})
	}
	a.examineServer(ctx, &e.Server)
	for _, c := range append(e.Checks, e.Server.Checks...) {
		if c.Required && !c.OK {
			e.OK = false
		}
	}
	return e
}

func (e *examination) findLanguages(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "brasa-doctor-") // for the bootstraps, which are not run
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	registry, err := runtimes.Discover(ctx, runtimes.Config{Dir: dir})
	if err != nil {
		return err
	}
	for _, r := range registry.Runtimes() {
		detail := r.Program
		if !r.Available {
			detail = r.Why
		}
		e.Runtimes = append(e.Runtimes, api.Runtime{Name: r.Name, Version: r.Version, Ready: r.Available, Detail: detail, Fix: r.Fix})
	}
	return nil
}

func (a *app) examineServer(ctx context.Context, s *serverReport) {
	client, err := a.client()
	if err != nil {
		s.Answer = err.Error()
		return
	}
	defer client.Close()
	v, err := client.Version(ctx)
	if err != nil {
		s.Answer = "none"
		return
	}
	s.Answer = v.Version
	d, err := client.Doctor(ctx)
	if err != nil {
		s.Answer += ", but it does not tell more: " + cli.Explain(err).Because
		return
	}
	s.Checks = d.Checks
}

func (a *app) drawReport(w io.Writer, e examination) error {
	s := a.out.OutStyles()
	var b strings.Builder
	b.WriteString(s.Strong.Render("this machine") + "\n")
	check := func(c api.Check) {
		mark := s.Good.Render("ok  ")
		switch {
		case !c.OK && c.Required:
			mark = s.Bad.Render("need")
		case !c.OK:
			mark = s.Warn.Render("lack")
		}
		b.WriteString("  " + mark + "  " + c.Name)
		if c.Detail != "" {
			b.WriteString(s.Faint.Render("  " + cli.CleanLine(strings.TrimSpace(c.Detail))))
		}
		b.WriteString("\n")
		if !c.OK && c.Lost != "" {
			b.WriteString("        lost: " + cli.CleanLine(c.Lost) + "\n")
		}
		if !c.OK && c.Fix != "" {
			b.WriteString("        fix:  " + cli.CleanLine(c.Fix) + "\n")
		}
	}
	for _, c := range e.Checks {
		check(c)
	}
	b.WriteString(s.Strong.Render("languages") + "\n")
	for _, r := range e.Runtimes {
		check(api.Check{Name: strings.TrimSpace(r.Name + " " + r.Version), OK: r.Ready, Detail: r.Detail, Fix: r.Fix})
	}
	b.WriteString(s.Strong.Render("server") + " at " + e.Server.URL + ": " + e.Server.Answer + "\n")
	fine := 0
	for _, c := range e.Server.Checks {
		if c.OK {
			fine++
		}
		// What is said above is not said again, nor what is fine as it has to be.
		if !slices.Contains(e.Checks, c) && (!c.OK || strings.HasPrefix(c.Name, "forks ")) {
			check(c)
		}
	}
	if n := len(e.Server.Checks); n > 0 {
		b.WriteString(s.Faint.Render(fmt.Sprintf("  %d of its %d checks are fine", fine, n)) + "\n")
	}
	if !e.OK {
		b.WriteString(s.Bad.Render("something required is missing: functions can't run") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
