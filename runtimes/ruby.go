package runtimes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	_ "embed"
)

//go:embed ruby/bootstrap.rb
var rubyBootstrap []byte

// rubyProbe asks the interpreter what it really is; a shim answers for the one behind it.
const rubyProbe = `
require "json"
require "rbconfig"
print JSON.generate([RUBY_VERSION, File.realpath(RbConfig.ruby), File.realpath(RbConfig::CONFIG["prefix"])])
`

// errRubyTimer is why a process of Ruby is replaced where others are put back.
var errRubyTimer = errors.New("Ruby holds a timer of the kernel from its start on, which can't be put back")

// findRuby finds a Ruby. RubyGems are left out of its start: they take longer to load than all
// the rest, and the bootstrap loads them ahead of need.
func findRuby(ctx context.Context, cfg Config, dir string) (*Runtime, error) {
	why := fmt.Errorf("no ruby in /usr/bin, /usr/local/bin or PATH")
	for _, p := range candidates(cfg.Ruby, "ruby") {
		out, err := probe(ctx, p, "--disable-gems", "-e", rubyProbe)
		if err != nil {
			why = err
			continue
		}
		var a [3]string
		var major, minor int
		if err := json.Unmarshal(out, &a); err != nil {
			why = fmt.Errorf("ask %s for its version: %w", p, err)
			continue
		}
		if _, err := fmt.Sscanf(a[0], "%d.%d.", &major, &minor); err != nil || major < 3 {
			why = fmt.Errorf("%s is Ruby %s; 3.0 or newer is needed", p, clip(a[0]))
			continue
		}
		if err := unpack(dir, "bootstrap.rb", rubyBootstrap); err != nil {
			return nil, fmt.Errorf("unpack bootstrap: %w", err)
		}
		return &Runtime{
			Version: a[0], Program: a[1], RootDir: rootOf(a[2]), Style: StyleFrames,
			bootDir: dir, boot: "bootstrap.rb", args: []string{"--disable-gems"}, reseeds: errRubyTimer,
		}, nil
	}
	return nil, why
}

// interpreterStem returns how a stem of Ruby or PHP is started: as any other process, told that it has
// time to rehearse.
func (rt *Runtime) interpreterStem() Stem {
	s := Stem{Class: rt.Name}
	s.Args, s.Env, s.Mounts = rt.Command(nil)
	s.Args = append(s.Args, "stem")
	return s
}
