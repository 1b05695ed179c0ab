# Called once per call with the input, parsed from JSON; what it returns is the answer.
def main(args)
  name = args.fetch("name", "world")
  puts "greeting #{name}" # goes to the logs: brasa logs
  { greeting: "Hello, #{name}!" }
end
