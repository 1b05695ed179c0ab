package runtimes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	_ "embed"
)

//go:embed php/bootstrap.php
var phpBootstrap []byte

// phpProbe asks the interpreter what it really is, and which files it is set up by.
const phpProbe = `
ini_set("display_errors", "stderr");
$files = array_merge([php_ini_loaded_file()], array_map("trim", explode(",", (string) php_ini_scanned_files())));
echo json_encode(["version" => PHP_VERSION, "program" => realpath(PHP_BINARY), "dir" => realpath(PHP_BINDIR . "/.."), "ini" => array_values(array_filter($files))]);
`

// phpSettings come after the host's own and win over them.
const phpSettings = `
; Brasa's
display_errors = stderr
display_startup_errors = 1
log_errors = 0
html_errors = 0
zend.exception_ignore_args = 1
auto_prepend_file =
auto_append_file =
output_buffering = 0
memory_limit = -1
max_execution_time = 0
user_ini.filename =
`

// phpSpeedups are extensions that have nothing to do in a process which compiles each file once, and take
// time to load.
var phpSpeedups = regexp.MustCompile(`(?m)^\s*zend_extension\s*=.*\b(opcache|xdebug)\b.*$`)

// errPHPGenerator is why a process of PHP is replaced where others are put back.
var errPHPGenerator = errors.New("PHP's lcg_value can't be given a new start")

// findPHP finds a PHP for the command line. The files that set it up lie outside of what a sandbox
// sees, so they are put together in one of ours.
func findPHP(ctx context.Context, cfg Config, dir string) (*Runtime, error) {
	why := fmt.Errorf("no php in /usr/bin, /usr/local/bin or PATH")
	for _, p := range candidates(cfg.PHP, "php") {
		out, err := probe(ctx, p, "-r", phpProbe)
		if err != nil {
			why = err
			continue
		}
		var a struct {
			Version, Program, Dir string
			Ini                   []string
		}
		var major, minor int
		if err := json.Unmarshal(out, &a); err != nil {
			why = fmt.Errorf("ask %s for its version: %w", p, err)
			continue
		}
		if _, err := fmt.Sscanf(a.Version, "%d.%d.", &major, &minor); err != nil || major < 8 || major == 8 && minor < 1 {
			why = fmt.Errorf("%s is PHP %s; 8.1 or newer is needed", p, clip(a.Version))
			continue
		}
		var ini strings.Builder
		for _, file := range a.Ini {
			b, err := os.ReadFile(file)
			if err != nil {
				cfg.Logger.Warn("a file that sets PHP up cannot be read", "err", err)
				continue
			}
			fmt.Fprintf(&ini, "; %s\n%s\n", file, phpSpeedups.ReplaceAll(b, nil))
		}
		ini.WriteString(phpSettings)
		if err := unpack(dir, "bootstrap.php", phpBootstrap); err != nil {
			return nil, fmt.Errorf("unpack bootstrap: %w", err)
		}
		if err := unpack(dir, "php.ini", []byte(ini.String())); err != nil {
			return nil, fmt.Errorf("unpack settings: %w", err)
		}
		return &Runtime{
			Version: strings.SplitN(a.Version, "-", 2)[0], Program: a.Program, RootDir: rootOf(a.Dir), Style: StyleFrames,
			bootDir: dir, boot: "bootstrap.php", args: []string{"-c", BootDir + "/php.ini"}, reseeds: errPHPGenerator,
		}, nil
	}
	return nil, why
}
