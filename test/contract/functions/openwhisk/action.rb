$loaded = ENV["AT_LOAD"]
$calls = 0

def main(args)
  $calls += 1
  case args.is_a?(Hash) ? args["do"] : "echo"
  when "echo"
    puts "out ✓"
    warn "err ✓"
    args
  when "env" then args["names"].to_h { |name| [name, ENV[name]] }
  when "load" then { loaded: $loaded, unicode: "héllo ✓ 你好" }
  when "count" then { calls: $calls }
  when "error" then { error: { code: 7, text: "mine" } }
  when "throw" then raise "thrown on purpose"
  when "exit" then exit 3
  when "hang" then sleep 600
  when "text" then "just text"
  when "list" then [1, "two"]
  when "nothing" then nil
  when "big" then { text: "x" * args["size"] }
  when "memory"
    hold = []
    loop { hold << ("x" * (8 << 20)) }
  end
end

def niam(args) = { entry: "niam" }
