package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/spf13/cobra"
)

// specFlags are the flags that say how code is run; deploy and run share them.
type specFlags struct {
	language, entry, handler, command string
	env, envFiles, secrets            []string
	memory, tmp, cpu                  string
	request, response, log            string
	pids, concurrency, instances      int
	least, target                     int
	warm                              []string
	timeout                           time.Duration
	network, reuse, state             string
	with                              []string
	scripts, strict                   bool
	prefetch, conductor               bool
	policy                            policyFlags
}

func (s *specFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVarP(&s.language, "language", "l", "", "`LANG`: "+strings.Join(languages, ", ")+"; found out from the code when left out")
	f.StringVar(&s.entry, "entry", "", "`FILE` in the code that is loaded or run")
	f.StringVar(&s.handler, "handler", "", "`NAME` in the entry that is called")
	f.StringVar(&s.command, "command", "", "`COMMAND` with arguments that is run instead of the entry (exec, lines, http)")
	f.StringArrayVarP(&s.env, "env", "e", nil, "`K=V` for the environment, or K to pass this shell's value on; repeatable")
	f.StringArrayVar(&s.envFiles, "env-file", nil, "`FILE` with K=V lines; repeatable")
	f.StringArrayVar(&s.secrets, "secret", nil, "`NAME` of a secret for the environment, set with brasa secret put; repeatable")
	f.StringVar(&s.memory, "memory", "", "`SIZE` of one instance's memory, /tmp included: 256MiB")
	f.StringVar(&s.cpu, "cpu", "", "`CORES` that one instance may use: 0.5")
	f.IntVar(&s.pids, "pids", 0, "`N` processes and threads in one instance")
	f.StringVar(&s.tmp, "tmp", "", "`SIZE` of /tmp: 64MiB")
	f.DurationVar(&s.timeout, "timeout", 0, "`TIME` one call may take, waiting and loading included: 30s")
	f.IntVar(&s.concurrency, "concurrency", 0, "`N` calls that one instance serves at once")
	f.IntVar(&s.instances, "max-instances", 0, "`N` instances at once on one node")
	f.StringVar(&s.request, "request", "", "`SIZE` of one request's body: 8MiB")
	f.StringVar(&s.response, "response", "", "`SIZE` of one answer's body: 64MiB")
	f.StringVar(&s.log, "log", "", "`SIZE` of one call's log: 1MiB")
	f.StringVar(&s.network, "network", "", "`KIND`: none (the default) or egress, the outside through a filter")
	f.StringArrayVar(&s.with, "with", nil, "`PACKAGE` to install besides those that the code's manifest names, as that would write it; repeatable")
	f.BoolVar(&s.scripts, "install-scripts", false, "let code of packages run while they are installed")
	f.BoolVar(&s.strict, "strict", false, "install nothing of which the lock has no hash")
	positive(f, "pids", "timeout", "concurrency", "max-instances")
	complete := func(flag string, values ...string) {
		completeFlag(c, flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	complete("language", languages...)
	complete("network", "none", "egress")
}

// addKeeping adds the flags that say what calls find of others. Code that is run once has no choice.
func (s *specFlags) addKeeping(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&s.reuse, "reuse", "", "whom the process serves after a call, a `KIND`: function (the default), tenant, any, or never to kill it")
	f.StringVar(&s.state, "state", "", "what a call finds of those before it, a `KIND`: kept (the default), or pristine for nothing")
	s.policy.add(c)
	f.IntVar(&s.least, "min-instances", 0, "`N` instances that stand whether anybody calls or not")
	f.IntVar(&s.target, "target", 0, "`N` calls at once in one instance, from which on another is made ahead")
	f.StringArrayVar(&s.warm, "warm", nil, "`WHEN` instances stand ready: 'CRON for TIME [in ZONE] [xN]', such as '0 8 * * MON-FRI for 10h in Europe/Berlin x2'; repeatable")
	f.BoolVar(&s.conductor, "conductor", false, "its answer names the function that is called next")
	f.BoolVar(&s.prefetch, "prefetch", false, "have all laid out on the node and an instance ready before the deploy ends")
	completeFlag(c, "reuse", cobra.FixedCompletions([]string{"function", "tenant", "any", "never"}, cobra.ShellCompDirectiveNoFileComp))
	completeFlag(c, "state", cobra.FixedCompletions([]string{"kept", "pristine"}, cobra.ShellCompDirectiveNoFileComp))
}

// spec reads the flags.
func (s *specFlags) spec(a *app) (api.Spec, error) {
	spec := api.Spec{
		Language: s.language, Entry: s.entry, Handler: s.handler, Secrets: s.secrets,
		Network: s.network, Reuse: s.reuse, State: s.state,
		With: s.with, InstallScripts: s.scripts, Strict: s.strict, Prefetch: s.prefetch, Conductor: s.conductor,
	}
	if s.network != "" && s.network != "none" && s.network != "egress" {
		return spec, cli.Usagef("--network %s: use none or egress", s.network)
	}
	if reuses := []string{"", "function", "tenant", "any", "never"}; !slices.Contains(reuses, s.reuse) {
		return spec, cli.Usagef("--reuse %s: use function, tenant, any or never", s.reuse)
	}
	if s.state != "" && s.state != "kept" && s.state != "pristine" {
		return spec, cli.Usagef("--state %s: use kept or pristine", s.state)
	}
	var err error
	if spec.Async, err = s.policy.policy(); err != nil {
		return spec, err
	}
	if spec.Command, err = splitCommand(s.command); err != nil {
		return spec, cli.Usagef("--command: %v", err)
	}
	if spec.Env, err = s.environment(); err != nil {
		return spec, err
	}
	for name := range maps.Keys(spec.Env) {
		if looksSecret.MatchString(name) {
			a.out.Warn("%s is kept where everyone who may see the function can read it; better: brasa secret put %s, and --secret %s", name, name, name)
		}
	}
	l := faas.Limits{PIDs: s.pids, Timeout: faas.Duration(s.timeout), Concurrency: s.concurrency, MaxInstances: s.instances, MinInstances: s.least, Target: s.target}
	for _, size := range []struct {
		flag, text string
		to         *faas.Bytes
	}{
		{"memory", s.memory, &l.Memory}, {"tmp", s.tmp, &l.Tmp},
		{"request", s.request, &l.Request}, {"response", s.response, &l.Response}, {"log", s.log, &l.Log},
	} {
		if size.text == "" {
			continue
		}
		if *size.to, err = faas.ParseBytes(size.text); err != nil {
			return spec, cli.Usagef("--%s: %v", size.flag, faas.AsError(err).Message())
		}
		if *size.to == 0 && size.flag != "log" {
			return spec, cli.Usagef("--%s %s: %v", size.flag, size.text, errNotPositive)
		}
	}
	if l.CPU, err = parseCPU(s.cpu); err != nil {
		return spec, err
	}
	if l != (faas.Limits{}) {
		spec.Limits = &l
	}
	for _, text := range s.warm {
		w, err := parseWarm(text)
		if err != nil {
			return spec, err
		}
		spec.Warm = append(spec.Warm, w)
	}
	return spec, nil
}

// parseWarm reads 'CRON for TIME [in ZONE] [xN]'. The server checks what the words mean.
func parseWarm(text string) (w faas.WarmWindow, err error) {
	bad := cli.Usagef("--warm %s: write it as 'CRON for TIME [in ZONE] [xN]'", text).WithFix("--warm '0 8 * * MON-FRI for 10h in Europe/Berlin x2'")
	at, rest, ok := strings.Cut(text, " for ")
	words := strings.Fields(rest)
	if !ok || len(words) == 0 {
		return w, bad
	}
	w.At = strings.TrimSpace(at)
	d, err := time.ParseDuration(words[0])
	if err != nil {
		return w, bad
	}
	w.For = faas.Duration(d)
	for words = words[1:]; len(words) > 0; {
		if words[0] == "in" && len(words) > 1 {
			w.Zone, words = words[1], words[2:]
			continue
		}
		n, isCount := strings.CutPrefix(words[0], "x")
		if w.Instances, err = strconv.Atoi(n); !isCount || err != nil {
			return w, bad
		}
		words = words[1:]
	}
	return w, nil
}

var looksSecret = regexp.MustCompile(`(?i)(^|_)(pass(word|wd|phrase)?|secret|token|api_?key|private_?key|credentials?)($|_)`)

// parseCPU reads a number of cores, "0.5", or thousandths of one, "500m".
func parseCPU(s string) (millis int, err error) {
	if s == "" {
		return 0, nil
	}
	number, scale := s, 1000.0
	if m, ok := strings.CutSuffix(s, "m"); ok {
		number, scale = m, 1
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || !(f > 0) || f*scale > 1e9 {
		return 0, cli.Usagef("--cpu %s is no number of cores; write it as 0.5 or 500m", s)
	}
	return max(1, int(f*scale+0.5)), nil
}

// environment reads the files of --env-file, then -e, which wins.
func (s *specFlags) environment() (map[string]string, error) {
	env := map[string]string{}
	for _, file := range s.envFiles {
		if err := readEnvFile(file, env); err != nil {
			return nil, cli.Usagef("--env-file %v", err)
		}
	}
	for _, kv := range s.env {
		k, v, ok := strings.Cut(kv, "=")
		if k == "" {
			return nil, cli.Usagef("-e %s has no name before the =", kv)
		}
		if !ok {
			if v, ok = os.LookupEnv(k); !ok {
				return nil, cli.Usagef("-e %s has no value, and this shell has no variable of that name", k).WithFix("-e %s=VALUE", k)
			}
		}
		env[k] = v
	}
	return env, nil
}

// readEnvFile reads lines of K=V. Empty lines and comments are skipped, "export" and one pair of
// quotes around the value are taken off; nothing is expanded.
func readEnvFile(file string, env map[string]string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		k, v, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		k, v = strings.TrimSpace(k), strings.TrimSpace(v)
		if !ok || k == "" {
			return fmt.Errorf("%s:%d: want K=V", file, n)
		}
		if len(v) >= 2 && (v[0] == '"' || v[0] == '\'') && v[len(v)-1] == v[0] {
			v = v[1 : len(v)-1]
		}
		env[k] = v
	}
	return lines.Err()
}

// splitCommand splits a command line as a shell does, quotes and backslashes included, but
// expands nothing. A JSON array of strings is taken as it is.
func splitCommand(s string) ([]string, error) {
	if strings.HasPrefix(strings.TrimSpace(s), "[") {
		var words []string
		if err := json.Unmarshal([]byte(s), &words); err != nil {
			return nil, fmt.Errorf("%s is no JSON array of strings", s)
		}
		return words, nil
	}
	var words []string
	var word strings.Builder
	var quote rune
	inWord, escaped := false, false
	for _, r := range s {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == ' ' || r == '\t' || r == '\n':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, fmt.Errorf("%s ends inside a quote", s)
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}
