# The functions of the contract suite; args["do"] says which.
require "brasa"
require "logger"

GO_ON = Queue.new
DONE = Queue.new

def main(args, context)
  Does.public_send(args["do"], args, context)
end

module Does
  module_function

  def dict(_args, _context) = { "text" => "héllo ✓ 你好", number: 1.5, list: [1, nil, true] }
  def list(_args, _context) = [1, :two]
  def text(_args, _context) = "plain ✓"
  def bytes(_args, _context) = (0..255).to_a.pack("C*")
  def number(_args, _context) = 42
  def bool(_args, _context) = false
  def null(_args, _context) = nil
  def echo(args, _context) = args.reject { |k, _| k == "do" }

  def response(_args, _context)
    { statusCode: 201, headers: { "X-One" => "1", "Set-Cookie" => ["a=1", "b=2"] }, body: "made" }
  end

  def base64(_args, _context)
    { "statusCode" => 200, "headers" => { "content-type" => "image/x" }, "body" => "AAEC/w==", "isBase64Encoded" => true }
  end

  def status(args, _context) = { statusCode: args["status"], body: "x" }
  def header(args, _context) = Brasa::Response.new("x", headers: { args["name"] => args["value"] })
  def error(_args, _context) = raise(ArgumentError, "no good: é")
  def unserialisable(_args, _context) = { x: Object.new }
  def nan(_args, _context) = { x: Float::NAN }

  def exit(_args, _context)
    puts "about to exit"
    Process.exit!(3)
  end

  def recursion(args, context) = recursion(args, context)
  def loop(_args, _context)
    nil while true
  end

  def stream(_args, _context)
    Enumerator.new { |out| 3.times { |i| out << "part #{i}\n" } }
  end

  def objects(_args, _context) = [{ n: 1 }, { "n" => 2 }].each

  def sse(_args, _context)
    Brasa::Response.new((0..2).lazy.map { |i| "data: #{i}\n\n" }, headers: { "Content-Type" => "text/event-stream" })
  end

  def midway(_args, _context)
    Enumerator.new do |out|
      out << "one\n" << "two\n"
      raise "broke in the middle"
    end
  end

  def endless(_args, _context)
    Enumerator.new do |out|
      out << "x".b * 65_536 while true
    ensure
      puts "closed"
    end
  end

  def big(args, _context) = "y".b * args["size"]

  def bigstream(args, _context)
    Enumerator.new { |out| (args["size"] / 65_536).times { out << "z".b * 65_536 } }
  end

  def log(args, _context)
    tag = args["tag"]
    args["count"].times do |i|
      puts "#{tag} #{i}"
      $stderr.print tag, " err ", i, "\n"
    end
    Thread.new { STDOUT << "#{tag} thread\n" }.join
    Logger.new(STDERR, formatter: ->(_, _, _, message) { "#{message}\n" }).warn("#{tag} logging")
    tag
  end

  def hugeline(args, _context)
    puts "x" * args["size"]
    "ok"
  end

  def unfinished(_args, _context)
    print "no end"
    "ok"
  end

  def later(_args, _context)
    GO_ON.clear
    DONE.clear
    Thread.new do
      GO_ON.pop
      puts "late line"
      DONE << true
    end
    "ok"
  end

  def release(_args, _context)
    GO_ON << true
    DONE.pop
    "ok"
  end

  def context(_args, context)
    {
      id: context.invocation_id, function: context.function_name, namespace: context.namespace, revision: context.revision,
      memory: context.memory_limit, cause: context.cause, remaining: context.remaining_ms,
    }
  end

  def env(args, _context) = args["names"].to_h { |k| [k, ENV[k]] }
  def stray(_args, _context) = Kernel.exit(7)

  def wait(_args, context)
    sleep 0.005 until context.canceled?
    puts "canceled"
    raise Brasa::Canceled
  end
end
