# frozen_string_literal: true

# What the installer of gems runs, in three steps of which only the second has a network:
#
#   read     evaluates the Gemfile, which is code of the function, and writes down what it names
#   download gets these, or what the lock says of them, and compares hashes
#   install  unpacks and compiles, and writes a file that puts all of it on the load path
#
# A line that begins with "brasa: " says what the caller must mend.

require "fileutils"
require "json"
require "rubygems"

SRC, WORK, TARGET = "/src", "/scratch", "/deps"
ABI = RbConfig::CONFIG["ruby_version"]
HOME = "#{TARGET}/ruby/#{ABI}"
OUT = %i[development test].freeze # groups that a function does without

def mend(text)
  puts "brasa: #{text}"
  exit 1
end

def read
  require "bundler"
  gemfile = ["Gemfile", "gems.rb", ".brasa/Gemfile"].map { |f| "#{SRC}/#{f}" }.find { |f| File.exist?(f) }
  ENV["BUNDLE_GEMFILE"] = gemfile
  definition = Dir.chdir(SRC) { Bundler::Dsl.evaluate(gemfile, nil, {}) }
  source = definition.send(:sources)
  remotes = (source.respond_to?(:global_rubygems_source) ? [source.global_rubygems_source] : source.rubygems_sources).flat_map(&:remotes).map(&:to_s)
  remotes = ["https://rubygems.org/"] if remotes.empty?
  names, lines, local = [], [], []
  definition.dependencies.each do |d|
    next if (d.groups - OUT).empty? || !d.should_include?

    case d.source
    when Bundler::Source::Git
      mend "the gem #{d.name} comes from a git repository, which is not fetched: bundle config set cache_all true, then bundle cache, and name it with path: \"vendor/cache/…\""
    when Bundler::Source::Path
      local << d.name
      spec = d.source.specs.search(d.name).first or mend "there is no gem #{d.name} where the Gemfile says it is"
      local.concat(spec.full_require_paths) # its own files are the code's
      spec.runtime_dependencies.each { |x| names << x.name; lines << [x.name, x.requirement.as_list, nil] }
    else
      names << d.name
      lines << [d.name, d.requirement.as_list, d.source&.remotes&.map(&:to_s)&.first]
    end
  end
  File.write("#{WORK}/wanted.json", JSON.generate({ names: names.uniq, local: local.grep(%r{\A/}), remote: remotes.first, lines: lines.uniq.reject { |name, *| local.include?(name) } }))
rescue Bundler::GemfileNotFound, Bundler::Dsl::DSLError, Bundler::GemfileError => e
  mend "the Gemfile cannot be read: #{e.message.lines.reject { |l| l.strip.empty? }.first(3).map(&:strip).join(" ")}"
end

# A Gemfile that is made of names alone, none of which is code: the Gemfile itself is not to run again,
# where credentials are.
def gemfile(wanted)
  text = +"source #{wanted["remote"].to_s.dump}\n"
  wanted["lines"].each { |name, requirement, from| text << "gem #{[name, *requirement].map { |s| s.to_s.dump }.join(", ")}#{", source: #{from.to_s.dump}" if from}\n" }
  FileUtils.mkdir_p("#{WORK}/app")
  File.write("#{WORK}/app/Gemfile", text)
end

# Addresses with the credentials that the server has for them.
def registries = @registries ||= JSON.parse(File.exist?("/access/gems.json") ? File.read("/access/gems.json") : "{}")

def address(remote)
  remote = remote.sub(%r{/*\z}, "/")
  mirror = registries["mirror"].to_s
  return mirror.sub(%r{/*\z}, "/") if !mirror.empty? && remote == "https://rubygems.org/"

  uri = URI(remote)
  mine = (registries["sources"] || []).map { |s| URI(s) }.find { |s| s.host == uri.host && s.port == uri.port && s.scheme == uri.scheme }
  uri.user, uri.password = mine.user, mine.password if mine
  uri.to_s
end

def download
  ENV["HOME"] = ENV["TMPDIR"] = ENV["BUNDLE_USER_HOME"] = "/tmp" # what is cached under an address with a password goes with this step
  require "bundler"
  require "digest"
  require "rubygems/remote_fetcher"
  lock = ["Gemfile.lock", "gems.locked"].map { |f| "#{SRC}/#{f}" }.find { |f| File.exist?(f) }
  lock = nil if File.exist?("#{SRC}/.brasa/unlocked")
  seen = JSON.parse(File.read("#{WORK}/wanted.json"))
  gemfile(seen)
  unless lock
    env = { "BUNDLE_GEMFILE" => "#{WORK}/app/Gemfile", "BUNDLE_APP_CONFIG" => "#{WORK}/config" }
    env["BUNDLE_MIRROR__HTTPS://RUBYGEMS__ORG/"] = registries["mirror"] if registries["mirror"]
    (registries["sources"] || []).each { |s| u = URI(s); env["BUNDLE_#{u.host.upcase.gsub(".", "__").gsub("-", "___")}"] = "#{u.user}:#{u.password}" if u.user }
    FileUtils.cp("#{SRC}/Gemfile.lock", "#{WORK}/app/Gemfile.lock") if File.exist?("#{SRC}/Gemfile.lock")
    system(env, RbConfig.ruby, "-S", "bundle", "lock", chdir: "#{WORK}/app") or exit 1
    lock = "#{WORK}/app/Gemfile.lock"
    FileUtils.mkdir_p("#{TARGET}/resolved")
    FileUtils.cp(lock, "#{TARGET}/resolved/Gemfile.lock")
  end
  text = File.read(lock)
  ENV["BUNDLE_GEMFILE"] = "#{WORK}/app/Gemfile"
  specs = Bundler::LockfileParser.new(text.sub(/^CHECKSUMS\n(?:  .*\n)*/, "")).specs.group_by(&:name)
  hashes = text[/^CHECKSUMS\n((?:  .*\n)*)/, 1].to_s.scan(/^  (\S+) \((\S+)\) sha256=(\h{64})/).to_h { |n, v, h| ["#{n}-#{v}", h] }
  FileUtils.mkdir_p("#{WORK}/cache")
  wanted, done = seen["names"], {}
  until wanted.empty?
    name = wanted.shift
    next if done[name] || name == "bundler"

    done[name] = true
    all = specs[name] or mend "Gemfile.lock does not name #{name}, which the Gemfile asks for: bundle lock"
    spec = choose(all)
    wanted.concat(spec.dependencies.map(&:name))
    fetch(spec, hashes) if spec.source.is_a?(Bundler::Source::Rubygems)
  end
rescue Bundler::LockfileError => e
  mend "Gemfile.lock cannot be read: #{e.message.lines.first.strip}"
end

# The variant for this machine, else the one that is compiled on it.
def choose(all)
  musl = RbConfig::CONFIG["host_os"].include?("musl")
  fits = all.select { |s| s.platform.to_s == "ruby" || Gem::Platform.new(s.platform.to_s) === Gem::Platform.local && s.platform.to_s.end_with?("musl") == musl }
  mend "Gemfile.lock has no #{all.first.name} for #{Gem::Platform.local}: bundle lock --add-platform #{Gem::Platform.local}" if fits.empty?
  fits.max_by { |s| s.platform.to_s == "ruby" ? 0 : s.platform.to_s.length }
end

def fetch(spec, hashes)
  full = spec.platform.to_s == "ruby" ? "#{spec.name}-#{spec.version}" : "#{spec.name}-#{spec.version}-#{spec.platform}"
  brought = "#{SRC}/vendor/cache/#{full}.gem"
  if File.exist?(brought)
    data = File.binread(brought)
  else
    data, failures = nil, []
    spec.source.remotes.each do |remote|
      puts "Fetching #{full}"
      data = Gem::RemoteFetcher.fetcher.fetch_path(URI("#{address(remote.to_s)}gems/#{full}.gem"))
      break
    rescue Gem::RemoteFetcher::FetchError, SystemCallError => e
      failures << e.message.gsub(%r{//[^/@\s]*@}, "//")
    end
    if data.nil?
      mend "no registry has the gem #{spec.name} #{spec.version}: its author took it back (yanked), or it was never there" if failures.any? { |f| f.match?(/\b40[34]\b|No such file/) }
      abort failures.join("\n")
    end
  end
  said = hashes[full]
  is = Digest::SHA256.hexdigest(data)
  mend "the gem #{spec.name} #{spec.version} has the hash #{is}, and Gemfile.lock says #{said}" if said && said != is
  File.binwrite("#{WORK}/cache/#{full}.gem", data)
end

def install
  require "rubygems/installer"
  require "rubygems/package"
  FileUtils.mkdir_p(HOME)
  specs = Dir["#{WORK}/cache/*.gem"].sort.map do |file|
    package = Gem::Package.new(file)
    puts "Installing #{package.spec.full_name}"
    Gem::Installer.new(package, install_dir: HOME, force: true, ignore_dependencies: true, wrappers: true, env_shebang: true, document: [], build_root: nil).install
  rescue Gem::Ext::BuildError => e
    puts e.message
    mend "the gem #{package.spec.name} #{package.spec.version} cannot be compiled here; the lines above say why"
  rescue Gem::InstallError, Gem::RuntimeRequirementNotMetError => e
    mend "the gem #{package.spec.name} #{package.spec.version} cannot be installed: #{e.message.lines.first.strip}"
  end
  local = JSON.parse(File.read("#{WORK}/wanted.json"))["local"]
  paths = specs.flat_map(&:full_require_paths).map { |p| p.delete_prefix("#{TARGET}/") }
  FileUtils.mkdir_p("#{TARGET}/bundler")
  File.write("#{TARGET}/bundler/setup.rb", <<~RUBY)
    at = File.expand_path("..", __dir__)
    $LOAD_PATH.unshift(*#{paths.inspect}.map { |p| "\#{at}/\#{p}" }, *#{local.map { |p| p.sub(%r{\A#{SRC}/}, "/code/") }.inspect})
  RUBY
  %w[cache doc build_info].each { |d| FileUtils.rm_rf("#{HOME}/#{d}") }
  Dir["#{HOME}/gems/*/ext/**/*.{o,so,log}", "#{HOME}/gems/*/ext/**/Makefile", "#{HOME}/extensions/**/{gem_make.out,mkmf.log}"].each { |f| FileUtils.rm_f(f) }
end

require "uri"
send({ "read" => :read, "download" => :download, "install" => :install }.fetch(ARGV.first))
