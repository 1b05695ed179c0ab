# frozen_string_literal: true

# Brasa's bootstrap for Ruby 3.0 and newer: frame protocol 1 over descriptor 3.
#
# It boots (Boot.stem), is told its function (Boot.load), and serves calls (serve_inline,
# serve_threads). Booting knows nothing of the function, so that a booted process can wait in
# stock. What a function may return and what it gets is written in docs/runtimes/ruby.md and
# tested in test/contract.
#
# A plain handler with a concurrency of one runs on the main thread, which reads frames for
# itself; with more, handlers run on threads while the main thread reads.

require "json"
require "stringio"

# What a function may need of its platform.
module Brasa
  LOAD, CALL, BODY, BODY_END, CANCEL, CREDIT = 1, 2, 3, 4, 5, 6
  HELLO, LOADED, LOAD_FAILED, LOG, RESULT, HEAD, DATA, END_OF, WINDOW = *16..24
  private_constant :LOAD, :CALL, :BODY, :BODY_END, :CANCEL, :CREDIT, :HELLO, :LOADED, :LOAD_FAILED, :LOG, :RESULT, :HEAD, :DATA, :END_OF, :WINDOW

  MAX_PAYLOAD = 1 << 20
  MAX_WHOLE = 256 << 10 # an answer up to this size travels in one frame
  INITIAL_WINDOW = 1 << 20
  CHUNK = 128 << 10 # bytes in one DATA frame
  MAX_PART = 32 << 10 # bytes of a log line that are kept while its end has not come
  NESTING = 1000 # of JSON
  DEFAULT_HANDLERS = %w[main handle handler].freeze
  OWN = "\0\0\0\0".b.freeze # the stream of the instance itself
  BINARY = Encoding::BINARY
  HERE = File.dirname(__FILE__) # as backtraces show it
  private_constant :MAX_PAYLOAD, :MAX_WHOLE, :INITIAL_WINDOW, :CHUNK, :MAX_PART, :NESTING, :DEFAULT_HANDLERS, :OWN, :BINARY, :HERE

  # The caller went away, or the deadline has passed.
  class Canceled < IOError; end

  # The request is not what it says, which its caller can mend.
  class Unfit < StandardError; end

  # The code lacks the file or method that is to be run.
  class Missing < StandardError; end

  # The function's answer breaks its contract.
  class BadResult < StandardError; end

  # The answer is over its limit.
  class TooLarge < StandardError; end
  private_constant :Unfit, :Missing, :BadResult, :TooLarge

  # An answer with its status and headers. The body may be text, bytes, a value for JSON, or what
  # yields these one after the other, which is streamed.
  class Response
    attr_accessor :body, :status, :headers

    def initialize(body = nil, status: 200, headers: {})
      @body, @status, @headers = body, status, headers
    end
  end

  # Headers of a request; names are the same in upper and lower case.
  class Headers
    include Enumerable

    def initialize(multi)
      @multi = multi.transform_keys(&:downcase)
    end

    def [](name)
      @multi[name.to_s.downcase]&.join(", ")
    end

    def fetch(name, *default)
      self[name] || (block_given? ? yield(name) : @multi.fetch(name.to_s.downcase, *default))
    end

    def key?(name) = @multi.key?(name.to_s.downcase)
    alias has_key? key?
    alias include? key?

    # All values of a header, in order.
    def all(name) = (@multi[name.to_s.downcase] || []).dup

    def keys = @multi.keys
    def each(&block) = to_h.each(&block)
    def to_h = @multi.transform_values { |v| v.join(", ") }
    def to_json(*rest) = to_h.to_json(*rest)
    def inspect = to_h.inspect
  end

  # Parameters of a URL or form. Of one that is given twice the last counts; all has them all.
  class Query < Hash
    def initialize(text)
      super()
      @multi = {}
      text.split("&").each do |part|
        next if part.empty?

        name, value = part.split("=", 2)
        (@multi[Query.unquote(name || "")] ||= []) << Query.unquote(value || "")
      end
      @multi.each { |name, values| self[name] = values.last }
    end

    # All values of a parameter, in order.
    def all(name) = (@multi[name.to_s] || []).dup

    def self.unquote(text)
      text = text.tr("+", " ").b.gsub(/%\h\h/) { |hex| hex[1, 2].hex.chr }
      text.force_encoding(Encoding::UTF_8).scrub
    end
  end

  # Strict JSON.
  module Json
    # The library makes text of whatever it does not know. A state of this class says that the
    # answer of a function is being made, where that would hide a mistake.
    class State < JSON::State; end

    def self.parse(text)
      text = text.dup.force_encoding(Encoding::UTF_8)
      raise JSON::ParserError, "it is not UTF-8" unless text.valid_encoding?

      JSON.parse(text, max_nesting: NESTING)
    end

    def self.generate(value)
      State.new(max_nesting: NESTING).generate(value).b
    rescue JSON::JSONError, SystemStackError, EncodingError => e
      raise BadResult, "the function returned what JSON cannot hold: #{e.message}"
    end

    def self.be_strict
      plain = Object.instance_method(:to_json)
      Object.define_method(:to_json) do |state = nil, *rest|
        next plain.bind_call(self, state, *rest) unless State === state

        case self
        when Symbol, Module then to_s.to_json(state)
        when Struct then to_h.to_json(state)
        else
          next to_s.to_json(state) if Json.text?(self)
          next to_a.to_json(state) if defined?(::Set) && ::Set === self
          next to_h.to_json(state) if defined?(::Data) && ::Data.respond_to?(:define) && ::Data === self

          raise JSON::GeneratorError, "an object of class #{self.class}"
        end
      end
    end

    # Whether something is written as its to_s, as the library does it.
    def self.text?(value)
      Time === value || Rational === value || Complex === value || defined?(::Date) && ::Date === value || defined?(::URI::Generic) && ::URI::Generic === value || defined?(::BigDecimal) && ::BigDecimal === value || defined?(::Pathname) && ::Pathname === value
    end
  end
  private_constant :Json

  # --- Frames -----------------------------------------------------------------------------

  module Wire
    module_function

    # A frame; a stream is kept as the four bytes that name it.
    def frame(kind, stream, payload = "")
      [payload.bytesize + 5, kind].pack("NC") << stream << payload
    end

    def with_meta(meta) = [meta.bytesize].pack("N") << meta

    def result(stream, meta, body)
      [meta.bytesize + body.bytesize + 9, RESULT].pack("NC") << stream << [meta.bytesize].pack("N") << meta << body
    end
  end
  private_constant :Wire

  # Our end of the socket. One thread reads at a time; any may send.
  class Link
    attr_accessor :spec, :arrive
    attr_reader :calls, :arrived, :reading, :threaded

    def initialize(input, output)
      @in, @out, @pid = input, output, Process.pid
      @buffer = "".b
      @calls = {} # stream: Call
      @arrived = [] # calls not yet begun
      @sending, @reading = Mutex.new, Mutex.new
      @woken = @wake = @threaded = nil
      @arrive = ->(call) { @arrived << call }
    end

    # have says that from now on the current thread reads for all.
    def read_for_all
      @wake, @woken, @threaded = Mutex.new, ConditionVariable.new, Thread.current
    end

    def ours? = Process.pid == @pid

    def send(data)
      return unless ours? # in a child that the function forked: the socket is the parent's

      # Half a frame would be the end: what another thread raises in this one must wait.
      Thread.handle_interrupt(Exception => :never) do
        @sending.synchronize do
          until (n = @out.syswrite(data)) == data.bytesize
            data = data.byteslice(n..)
          end
        end
      end
    rescue SystemCallError, IOError
      lost
    end

    def lost(code = 0)
      Process.exit!(code) # the host is gone, and with it whoever would care
    end

    # Read what there is, at least one byte.
    def fill(want = 65_536)
      data = @in.sysread(want)
      @buffer = @buffer.empty? ? data : @buffer << data
    rescue SystemCallError, IOError
      lost
    end

    # Take a whole frame from the buffer: [kind, stream, payload], or nil.
    def next_frame
      b = @buffer
      return nil if b.bytesize < 9

      size = b.unpack1("N") + 4
      unless size.between?(9, 9 + MAX_PAYLOAD)
        @in.class.for_fd(2, "wb", autoclose: false).syswrite("brasa: a frame that cannot be read\n")
        lost(70)
      end
      return nil if b.bytesize < size

      @buffer = b.bytesize == size ? "".b : b.byteslice(size..)
      [b.getbyte(4), b.byteslice(5, 4), b.byteslice(9, size - 9)]
    end

    # Wait for a frame and handle it.
    def read_one
      until (f = next_frame)
        fill(@buffer.empty? ? 65_536 : 262_144)
      end
      dispatch(*f)
    end

    def readable?(seconds) = !IO.select([@in], nil, nil, seconds).nil?

    # Handle the frames that are here, without waiting.
    def read_ready
      return if @threaded || !@reading.try_lock

      begin
        Thread.handle_interrupt(Exception => :never) { fill if readable?(0) }
        while (f = next_frame)
          dispatch(*f)
        end
      ensure
        @reading.unlock
      end
    end

    # Wait until the block is true on behalf of a call, reading frames if nobody else does.
    def wait
      if @threaded
        @wake.synchronize { @woken.wait(@wake) until yield }
        return
      end
      until yield
        @reading.synchronize do
          next if yield

          f = next_frame
          next dispatch(*f) if f

          readable?(nil) # this wait may be broken off, and has then lost nothing
          Thread.handle_interrupt(Exception => :never) { fill(262_144) }
        end
      end
    end

    def dispatch(kind, stream, payload)
      if kind == CALL
        n = payload.unpack1("N")
        call = @calls[stream] = Call.new(self, stream, payload.byteslice(4, n), payload.byteslice(4 + n..))
        return @arrive.call(call)
      end
      return @spec = Json.parse(payload) if kind == LOAD

      call = @calls[stream] or return # it is over
      change = lambda do
        case kind
        when BODY then call.body.put(payload)
        when BODY_END then call.body.finish
        when CANCEL then call.canceled = true
        when CREDIT then call.credit += payload.unpack1("N")
        end
      end
      return change.call unless @threaded

      @wake.synchronize do
        change.call
        @woken.broadcast
      end
    end
  end
  private_constant :Link

  # --- What a function sees ---------------------------------------------------------------

  # A request's body: whole, or a stream that grants the host credit as it is read.
  class Body
    def initialize(call, data, streamed)
      @call, @chunks, @ended, @owed = call, data.empty? ? [] : [data], !streamed, 0
      @lock = Mutex.new
    end

    def put(data) = @lock.synchronize { @chunks << data }
    def finish = @ended = true
    def ready? = !@chunks.empty? || @ended || @call.canceled || @call.over

    # The next bytes, at most size, or "" at the end. Waits.
    def read(size = nil)
      @call.link.wait { ready? } unless ready?
      raise Canceled, "the caller went away before the end of its request" if @call.canceled || @call.over

      data = @lock.synchronize do
        first = @chunks.first
        if first.nil? then "".b
        elsif size.nil? || first.bytesize <= size then @chunks.shift
        else
          @chunks[0] = first.byteslice(size..)
          first.byteslice(0, size)
        end
      end
      unless @ended
        @owed += data.bytesize
        if @owed >= INITIAL_WINDOW / 4
          @call.link.send(Wire.frame(WINDOW, @call.stream, [@owed].pack("N")))
          @owed = 0
        end
      end
      data
    end

    def read_all
      all = read
      return all if all.empty?

      all = all.dup
      until (data = read).empty?
        all << data
      end
      all
    end
  end
  private_constant :Body

  # A request. It can also be used as the Hash of its arguments: what main(args) would get.
  class Event
    include Enumerable

    def initialize(call)
      @call, @meta = call, call.meta
    end

    def method(*name) = name.empty? ? @meta["method"] || "POST" : super
    def request_method = method
    def kind = @meta["kind"] || "invoke"
    def path = @meta["path"] || "/"
    def query_string = @meta["query"] || ""
    def length = @meta["length"] || 0 # -1: not known beforehand
    def query = @query ||= Query.new(query_string)
    def headers = @headers ||= Headers.new(@meta["headers"] || {})

    # The whole body as bytes; waits for its end.
    def body = @body ||= @call.body.read_all

    # The whole body as text.
    def text = body.dup.force_encoding(Encoding::UTF_8).scrub

    # The whole body as the JSON value that it is; JSON::ParserError if it is none.
    def json = Json.parse(body)

    # The next bytes of the body as they come, at most size; "" at its end.
    def read(size = nil) = @call.body.read(size)

    # Yields the body as it comes.
    def stream
      return enum_for(:stream) unless block_given?

      until (data = @call.body.read).empty?
        yield data
      end
    end

    def args = @args ||= Arguments.of(self)
    def [](key) = args[key.to_s]
    def fetch(key, *default, &block) = args.fetch(key.to_s, *default, &block)
    def dig(key, *rest) = args.dig(key.to_s, *rest)
    def key?(key) = args.key?(key.to_s)
    alias has_key? key?
    alias include? key?
    def keys = args.keys
    def values = args.values
    def each(&block) = args.each(&block)
    def to_h = args
    alias to_hash to_h
    def to_json(*rest) = args.to_json(*rest)
    def inspect = "#<Brasa::Event #{method} #{path}>"
  end

  # What main(args) gets: parameters of the URL, then the fields of a JSON object or form. Another
  # body is the one argument "body".
  module Arguments
    module_function

    def of(event)
      args = {}.merge!(event.query)
      body = event.body
      return args if body.empty?

      kind = (event.headers["content-type"] || "").split(";").first.to_s.strip.downcase
      form = kind == "application/x-www-form-urlencoded"
      # A form is tried as JSON first, because that is what curl -d calls JSON.
      if kind.empty? || form || kind == "application/json" || kind.end_with?("+json")
        begin
          value = Json.parse(body)
          value.is_a?(Hash) ? args.merge!(value) : args["body"] = value
          return args
        rescue JSON::JSONError => e
          unless kind.empty? || form
            why = e.is_a?(JSON::NestingError) ? "it is nested too deeply" : e.message.scrub[0, 200]
            raise Unfit, "the request says that its body is JSON, and it is not: #{why}"
          end
        end
      end
      return args.merge!(Query.new(body)) if form

      text = body.dup.force_encoding(Encoding::UTF_8)
      args["body"] = kind != "application/octet-stream" && text.valid_encoding? ? text : body
      args
    end

    # The arguments of a call without a query and with no body or a JSON object, which is most,
    # found without parsing META; nil if of must look. The quotes in what is searched for make sure
    # that it is no part of a string.
    def quick(call)
      raw = call.raw
      return nil if call.streamed || !raw.include?('"query":""')
      return {} if call.given.empty?
      return nil unless raw.include?('"Content-Type":["application/json"]') || raw.include?('"headers":{}')

      value = Json.parse(call.given)
      value.is_a?(Hash) ? value : nil
    rescue JSON::JSONError
      nil
    end
  end
  private_constant :Arguments

  # What is known of a call besides its request.
  class Context
    def initialize(call, spec)
      @call, @spec = call, spec
    end

    def invocation_id = @call.meta["id"] || ""
    def cause = @call.meta["cause"] || "" # the invocation that led to this one, or empty
    def attempt = @call.meta["attempt"] || 1
    def function_name = @spec["function"]
    def namespace = @spec["namespace"]
    def revision = @spec["revision"]
    def memory_limit = @spec["memory_bytes"]

    # Time until which the call may run; nil if there is no end.
    def deadline
      ms = @call.meta["deadline_ms"]
      ms && Time.at(ms / 1000, ms % 1000, :millisecond)
    end

    # Milliseconds until the deadline, never below zero; a day if there is none.
    def remaining_ms
      ms = @call.meta["deadline_ms"] or return 86_400_000
      (ms - Process.clock_gettime(Process::CLOCK_REALTIME, :millisecond)).clamp(0, 86_400_000)
    end

    # Whether the caller has gone.
    def canceled?
      @call.link.read_ready unless @call.canceled
      @call.canceled
    end

    # A Logger that writes to the call's log.
    def logger
      @logger ||= begin
        require "logger"
        ::Logger.new($stderr, formatter: ->(level, _, _, message) { "#{level} #{message}\n" })
      end
    end
  end

  # --- Logs -------------------------------------------------------------------------------

  # Turns what a call writes into whole lines, one frame for as many as come at once.
  class LineLog
    def initialize(link, stream, budget)
      @link, @stream, @budget = link, stream, budget
      @parts, @lock = ["".b, "".b, "".b], Mutex.new
    end

    def write(which, text)
      data = @lock.synchronize do
        text = @parts[which] + text
        at = (text.rindex("\n") || -1) + 1
        at = text.bytesize if at.zero? && text.bytesize > MAX_PART
        @parts[which] = text.byteslice(at..)
        at.zero? ? nil : lines(which, text.byteslice(0, at))
      end
      @link.send(data) unless data.nil? || data.empty?
    end

    # The frames of lines that have no end.
    def rest
      return "" if @parts[1].empty? && @parts[2].empty?

      @lock.synchronize do
        out = [1, 2].map { |i| @parts[i].empty? ? "" : lines(i, @parts[i]) }.join
        @parts = ["".b, "".b, "".b]
        out
      end
    end

    private

    def lines(which, data)
      return "".b if @budget <= 0 # the host drops what is over, so it need not be sent

      @budget -= data.bytesize
      out = "".b
      (0...data.bytesize).step(MAX_WHOLE) { |i| out << Wire.frame(LOG, @stream, which.chr.b << data.byteslice(i, MAX_WHOLE)) }
      out
    end
  end
  private_constant :LineLog

  # The threads of a call. A thread is born into the group of the one that starts it, so that what
  # it writes finds its call.
  class Group < ThreadGroup
    attr_accessor :call
  end
  private_constant :Group

  # Makes STDOUT and STDERR write to the log of the call on whose behalf code runs. They stay the
  # files that they are, for whoever asks for their number.
  module Output
    def self.capture(io, which)
      io.sync = true
      io.instance_variable_set(:@brasa, which)
      io.extend(self)
    end

    def write(*parts)
      return super unless @brasa

      parts.sum { |part| Boot.put(self, @brasa, part.to_s) }
    end

    def syswrite(text) = @brasa ? write(text) : super
    def write_nonblock(text, **options) = @brasa ? write(text) : super

    # Whoever wants it to go elsewhere gets that.
    def reopen(...)
      @brasa = nil
      super
    end
  end
  private_constant :Output

  # --- Calls ------------------------------------------------------------------------------

  # One call: its request, its log, its answer.
  class Call
    attr_reader :link, :stream, :raw, :given, :streamed, :over, :headed
    attr_accessor :canceled, :credit

    JSON_META = '{"status":200,"headers":{"Content-Type":["application/json"]}}'.b.freeze

    def initialize(link, stream, raw, data)
      @link, @stream, @raw, @given = link, stream, raw, data
      # The quotes make sure that it is no part of a string, and headers have lists.
      @streamed = raw.include?('"body":"stream"')
      @canceled = @over = @headed = false
      @credit, @sent = INITIAL_WINDOW, 0
      @body = Body.new(self, data, true) if @streamed # now, because from now on another thread may fill it
      Boot.reseed(meta["seed"]) if raw.include?('"seed":"')
    end

    def meta = @meta ||= Json.parse(@raw)
    def body = @body ||= Body.new(self, @given, false)
    def log = @log ||= LineLog.new(@link, @stream, @link.spec["log_bytes"] + 65_536)
    def rest = @log ? @log.rest : ""

    def finish(data)
      @link.calls.delete(@stream)
      @over = true
      rest = self.rest
      @link.send(rest.empty? ? data : rest + data)
    end

    def fail(error)
      fault = Json.generate({ "error" => Fault.of(error) })
      finish(@headed ? Wire.frame(END_OF, @stream, fault) : Wire.result(@stream, fault, ""))
    end

    # Answer with a body in memory.
    def whole(meta, body)
      size, most = body.bytesize, @link.spec["response_bytes"]
      raise TooLarge, "the answer is #{size} bytes; response_bytes allows #{most}" if size > most
      return finish(Wire.result(@stream, meta, body)) if size <= MAX_WHOLE

      head(meta)
      write(body)
      finish(Wire.frame(END_OF, @stream))
    end

    def head(meta)
      @headed = true
      @link.send(rest + Wire.frame(HEAD, @stream, Wire.with_meta(meta)))
    end

    def write(data)
      at, most = 0, @link.spec["response_bytes"]
      while at < data.bytesize
        @link.wait { @credit.positive? || @canceled } unless @credit.positive? || @canceled
        raise Canceled, "the caller went away" if @canceled

        part = data.byteslice(at, [@credit, CHUNK].min)
        at += part.bytesize
        @credit -= part.bytesize
        @sent += part.bytesize
        raise TooLarge, "the answer is larger than response_bytes allows, #{most} bytes" if @sent > most

        @link.send(Wire.frame(DATA, @stream, part))
      end
    end
  end
  private_constant :Call

  # What is said of an exception: class, message, and a trace of the function's own frames.
  module Fault
    module_function

    def of(error)
      case error
      when Unfit then return { "code" => "invalid", "message" => message(error) }
      when BadResult, Missing then return { "message" => message(error) }
      when TooLarge then return { "message" => message(error), "limit" => "response_bytes" }
      when Canceled then return { "kind" => "Canceled", "message" => message(error) }
      end
      text = message(error)
      text = "the function called exit(#{error.status})" if error.is_a?(SystemExit)
      { "kind" => error.class.name.to_s[0, 200], "message" => text[0, 4000], "trace" => trace(error) }
    end

    def message(error)
      text = error.respond_to?(:detailed_message) && error.is_a?(SyntaxError) ? error.message : error.message.to_s
      clean(text)
    rescue Exception => e
      "(its message cannot be made: #{e.class})"
    end

    def clean(text)
      text = text.encode(Encoding::UTF_8, invalid: :replace, undef: :replace) unless [Encoding::UTF_8, BINARY].include?(text.encoding)
      text.dup.force_encoding(Encoding::UTF_8).scrub
    end

    def own?(frame)
      frame.start_with?(HERE + "/bootstrap.") || frame.include?("/rubygems/core_ext/") || frame.start_with?("<internal:")
    end

    def trace(error)
      out, seen = "".dup, {}.compare_by_identity
      while error && !seen[error]
        out << "caused by " unless seen.empty?
        seen[error] = true
        frames = (error.backtrace || []).reject { |f| own?(f) }
        return "" if frames.empty? && seen.size == 1 && !error.cause && !error.is_a?(ScriptError)

        frames = frames.first(40) + ["[...]"] + frames.last(20) if frames.size > 61
        out << "#{error.class}: #{message(error)[0, 4000]}\n" << frames.map { |f| "    from #{clean(f)}\n" }.join
        error = error.cause
      end
      out.length <= 24_000 ? out : "#{out[0, 4000]}\n  [...]\n#{out[-20_000..]}"
    rescue Exception
      ""
    end
  end
  private_constant :Fault

  # Makes an answer of what a handler returned.
  module Answer
    module_function

    # One value: [bytes, its content type].
    def encode(value)
      return [Json.generate(value), "application/json"] unless value.is_a?(String)
      return [value.b, "application/octet-stream"] if value.encoding == BINARY

      text = value.encoding == Encoding::UTF_8 ? value : value.encode(Encoding::UTF_8)
      [text.b, text.valid_encoding? ? "text/plain; charset=utf-8" : "application/octet-stream"]
    rescue EncodingError
      [value.b, "application/octet-stream"]
    end

    def stream?(value)
      value.is_a?(Enumerator) || value.respond_to?(:read) && !value.is_a?(Module) && !value.is_a?(Event)
    end

    # Whether a body, of which is known that it is one, comes piece by piece.
    def pieces?(value)
      stream?(value) || value.respond_to?(:each) && !(value.is_a?(Hash) || value.is_a?(Array) || value.is_a?(Struct) || value.respond_to?(:to_json) && value.method(:to_json).owner != Object)
    end

    # Take a response apart: [body, status, headers], or nil if it is a bare value.
    def unwrap(value)
      return [value.body, value.status, value.headers] if value.is_a?(Response)
      return nil unless value.is_a?(Hash)

      status = value["statusCode"] || value[:statusCode]
      return nil unless status.is_a?(Integer)

      headers = {}.merge!((value["headers"] || value[:headers] || {}).to_h)
      headers.merge!((value["multiValueHeaders"] || value[:multiValueHeaders] || {}).to_h)
      body = value.fetch("body") { value[:body] }
      if body && (value["isBase64Encoded"] || value[:isBase64Encoded])
        begin
          body = body.to_s.unpack1("m0")
        rescue ArgumentError
          raise BadResult, "the function said isBase64Encoded, but its body is not base64"
        end
      end
      [body, status, headers]
    end

    # The META of an answer with a status and headers.
    def head_of(status, headers, content_type)
      unless status.is_a?(Integer) && status.between?(200, 599)
        raise BadResult, "the function answered with status #{status.inspect[0, 80]}; it must be a number from 200 to 599"
      end
      raise BadResult, "the function gave headers that are not a Hash of names to values" unless headers.nil? || headers.respond_to?(:each_pair)

      out = {}
      (headers || {}).each_pair do |name, value|
        next if value.nil?

        (out[name.to_s] ||= []).concat((value.is_a?(Array) ? value : [value]).map(&:to_s))
      end
      out["Content-Type"] = [content_type] if content_type && out.none? { |name, _| name.casecmp?("content-type") }
      Json.generate({ "status" => status, "headers" => out })
    end

    # Answer a call, on the thread that ran it.
    def give(call, value)
      if value.nil?
        return call.meta["kind"] == "http" ? call.whole('{"status":204}'.b, "") : call.whole(Call::JSON_META, "null")
      end
      body, status, headers = unwrap(value)
      if status.nil?
        return stream(call, value, 200, nil) if stream?(value)

        data, type = encode(value)
        return call.whole(type == "application/json" ? Call::JSON_META : head_of(200, nil, type), data)
      end
      return call.whole(head_of(status, headers, nil), "") if body.nil?
      return stream(call, body, status, headers) if pieces?(body)

      data, type = encode(body)
      call.whole(head_of(status, headers, type), data)
    end

    # Answer with what comes piece by piece. A value is a line of JSON.
    def stream(call, source, status, headers)
      each_piece(source) do |value|
        data, type = encode(value)
        data, type = data << "\n", "application/x-ndjson" if type == "application/json"
        call.head(head_of(status, headers, type)) unless call.headed
        call.write(data)
        call.link.read_ready # only here a call that fills its own thread can learn of CANCEL
      end
      call.head(head_of(status, headers, "text/plain; charset=utf-8")) unless call.headed
      call.finish(Wire.frame(END_OF, call.stream))
    ensure
      shut(source)
    end

    def each_piece(source, &block)
      return source.each(&block) unless source.respond_to?(:read)

      while (data = source.read(65_536)) && !data.empty?
        yield data
      end
    end

    def shut(source)
      source.close if source.respond_to?(:close) && !(source.respond_to?(:closed?) && source.closed?)
    rescue StandardError => e
      $stderr.write("error while closing the stream: #{e.message}\n")
    end

    # Answer with what a Rack application returned.
    def rack(call, value)
      unless value.is_a?(Array) && value.size == 3
        raise BadResult, "the application answered with #{value.class}; Rack wants [status, headers, body]"
      end

      status, headers, body = value
      headers = headers.to_h.reject { |k, _| k.to_s.start_with?("rack.") }.transform_values { |v| v.is_a?(String) ? v.split("\n") : v }
      status = status.to_i
      if body.respond_to?(:to_ary)
        data = body.to_ary.join.b
        shut(body)
        return call.whole(head_of(status, headers, nil), data)
      end
      unless body.respond_to?(:each)
        out = Pipe.new(call, -> { head_of(status, headers, nil) })
        body.call(out)
        return out.finish
      end
      out = Pipe.new(call, -> { head_of(status, headers, nil) })
      begin
        body.each { |part| out.write(part) }
      ensure
        shut(body)
      end
      out.finish
    end
  end
  private_constant :Answer

  # What the body of a Rack application writes to.
  class Pipe
    def initialize(call, head)
      @call, @head, @closed = call, head, false
    end

    def write(*parts)
      @call.head(@head.call) unless @call.headed
      parts.sum do |part|
        @call.write(part.to_s.b)
        @call.link.read_ready
        part.to_s.bytesize
      end
    end

    def <<(part)
      write(part)
      self
    end

    def flush = self
    def close(*) = @closed = true
    alias close_write close
    def closed? = @closed

    def finish
      @call.head(@head.call) unless @call.headed
      @call.finish(Wire.frame(END_OF, @call.stream))
    end
  end
  private_constant :Pipe

  # What a Rack application reads its request from.
  class RackInput
    def initialize(call)
      @body, @rest = call.body, "".b
    end

    def read(size = nil, buffer = nil)
      data = @rest
      @rest = "".b
      while size.nil? || data.bytesize < size
        more = @body.read
        break if more.empty?

        data += more
      end
      if size && data.bytesize > size
        @rest = data.byteslice(size..)
        data = data.byteslice(0, size)
      end
      data = nil if size&.positive? && data.empty?
      return data unless buffer

      buffer.replace(data || "")
      data && buffer
    end

    def gets
      line = @rest
      until (at = line.index("\n"))
        more = @body.read
        break if more.empty?

        line += more
      end
      @rest = at ? line.byteslice(at + 1..) : "".b
      line = at ? line.byteslice(0, at + 1) : line
      line.empty? ? nil : line
    end

    def each
      while (line = gets)
        yield line
      end
    end

    def rewind = raise(IOError, "a request's body comes once")
    def close = nil
  end
  private_constant :RackInput

  # --- The function -----------------------------------------------------------------------

  # The handler and how it wants to be called.
  class Function
    def initialize(handler, name)
      @handler, @way = handler, :plain
      params = parameters(handler)
      names = params.filter_map { |kind, n| n if %i[req opt].include?(kind) }
      keys = params.filter_map { |kind, n| n if %i[keyreq key].include?(kind) }
      needed = params.count { |kind, _| kind == :req }
      raise Missing, "#{name} takes #{needed} arguments; a handler takes at most two" if needed > 2

      @arity = params.any? { |kind, _| kind == :rest } ? 2 : [names.size, 2].min
      first = names.first.to_s.delete_prefix("_")
      if !handler.is_a?(Method) && first == "env" || !handler.is_a?(Method) && handler.respond_to?(:call) && !handler.is_a?(Proc) && names.empty?
        @way = :rack
      elsif names.empty? && keys.any? { |k| %i[event context].include?(k) }
        @way, @keys = :keywords, keys
      end
      @event =
        case name
        when "main" then false
        when "handle", "handler" then true
        else keys.include?(:event) || %w[event request req].include?(first)
        end
    end

    def rack? = @way == :rack

    def answer(call, value) = rack? ? Answer.rack(call, value) : Answer.give(call, value)

    def call(call)
      case @way
      when :rack then @handler.call(environment(call))
      when :keywords
        given = {}
        given[:event] = first(call) if @keys.include?(:event)
        given[:context] = Context.new(call, call.link.spec) if @keys.include?(:context)
        @handler.call(**given)
      else
        case @arity
        when 0 then @handler.call
        when 1 then @handler.call(first(call))
        else @handler.call(first(call), Context.new(call, call.link.spec))
        end
      end
    end

    private

    def parameters(handler)
      handler.is_a?(Method) || handler.is_a?(Proc) ? handler.parameters : handler.method(:call).parameters
    end

    def first(call)
      return Event.new(call) if @event

      Arguments.quick(call) || Event.new(call).args
    end

    def environment(call)
      event = Event.new(call)
      env = {
        "REQUEST_METHOD" => event.method, "SCRIPT_NAME" => "", "PATH_INFO" => event.path, "QUERY_STRING" => event.query_string,
        "SERVER_NAME" => "localhost", "SERVER_PORT" => "80", "SERVER_PROTOCOL" => "HTTP/1.1", "REMOTE_ADDR" => "127.0.0.1",
        "rack.version" => [1, 6], "rack.url_scheme" => event.headers["x-forwarded-proto"] || "http", "rack.input" => RackInput.new(call),
        "rack.errors" => $stderr, "rack.multithread" => call.link.spec["concurrency"] > 1, "rack.multiprocess" => true, "rack.run_once" => false,
        "rack.hijack?" => false, "brasa.event" => event, "brasa.context" => Context.new(call, call.link.spec)
      }
      event.headers.each do |name, value|
        key = name.upcase.tr("-", "_")
        env[%w[CONTENT_TYPE CONTENT_LENGTH].include?(key) ? key : "HTTP_#{key}"] = value
      end
      env["CONTENT_LENGTH"] ||= event.length.to_s if event.length.positive?
      host, port = env["HTTP_HOST"].to_s.split(":")
      env["SERVER_NAME"] = host if host
      env["SERVER_PORT"] = port if port
      env
    end
  end
  private_constant :Function

  # The handler of an action of OpenWhisk: called with its arguments, it returns a Hash or an Array.
  class Action
    FAILED_META = '{"status":502,"headers":{"Content-Type":["application/json"]}}'.b.freeze
    INVALID = "so its response is not valid"

    def initialize(handler)
      @handler = handler
    end

    def call(call)
      call.meta["env"]&.each { |name, value| ENV[name] = value }
      input = Arguments.quick(call)
      if input.nil?
        event = Event.new(call)
        input = event.args
        input = input["body"] if input["body"].is_a?(Array) && event.body.lstrip.start_with?("[")
      end
      @handler.call(input)
    rescue StandardError, ScriptError => e
      $stderr.write(Fault.trace(e)) unless call.canceled
      raise
    end

    def answer(call, value)
      unless value.is_a?(Hash) || value.is_a?(Array)
        raise BadResult, "the action did not return a dictionary or array, #{INVALID}: #{value.inspect[0, 1000]}"
      end

      data = Json.generate(value)
      most = call.link.spec["response_bytes"]
      failed = value.is_a?(Hash) && (value.key?("error") || value.key?(:error))
      if data.bytesize > most
        failed, head = true, data.byteslice(0, 8192).force_encoding(Encoding::UTF_8).scrub("")
        data = Json.generate({ "error" => "the action's response is too long: #{data.bytesize} bytes are more than the #{most} that are allowed; it begins: #{head}" })
      end
      call.whole(failed ? FAILED_META : Call::JSON_META, data)
    end
  end
  private_constant :Action

  # --- The process ------------------------------------------------------------------------

  module Boot
    @link = @instance = nil
    @depth, @spent, @own = 0, 0, nil # what loading spends on code that is not the function's

    class << self
      # Write to the log of the call on whose behalf code runs; returns the bytes.
      def put(io, which, text)
        size = text.bytesize
        return size if size.zero?
        return raw(io, text) if @link.nil? || !@link.ours? # a child's lines are the instance's

        text = text.encode(Encoding::UTF_8, invalid: :replace, undef: :replace) unless [Encoding::UTF_8, Encoding::US_ASCII, BINARY].include?(text.encoding)
        group = Thread.current.group
        call = group.is_a?(Group) ? group.call : nil
        (call && !call.over ? call.log : @instance).write(which, text.b)
        size
      rescue ThreadError # in a signal's handler, which may hold no lock
        raw(io, text)
      end

      def raw(io, text)
        IO.instance_method(:syswrite).bind_call(io, text)
      end

      # Give whatever draws random numbers a new start: from the kernel, and from seed, which is 64
      # hexadecimal digits or nothing.
      def reseed(seed)
        fresh = Random.urandom(32) + [seed.to_s].pack("H*")
        Random.srand(fresh.unpack1("H*").hex)
        OpenSSL::Random.random_add(fresh, 32.0) if defined?(::OpenSSL::Random)
      end

      # Have RubyGems only where somebody needs it: it takes longer to load than Ruby to start.
      def gems
        return if @gems

        @gems = true
        require "rubygems"
      end

      def watch_require
        original = Kernel.instance_method(:require)
        boot = self
        Kernel.define_method(:require) do |name|
          boot.measured(name) { original.bind_call(self, name) }
        rescue LoadError => e
          raise if e.path.to_s != name.to_s || !boot.gems

          require(name)
        end
        Kernel.send(:private, :require)
        Object.autoload(:Gem, "rubygems")
      end

      def measured(name)
        return yield if @own.nil? || @depth.positive? || @own.include?(name.to_s[%r{\A[^/.]+}])
        return yield if name.to_s.start_with?("/", ".")

        begin
          @depth = 1
          begun = now
          yield
        ensure
          @depth = 0
          @spent += now - begun
        end
      end

      def now = Process.clock_gettime(Process::CLOCK_MONOTONIC, :microsecond)

      # Be a process of the runtime, from now on: say hello, load what comes, and serve it.
      def stem(rehearsing)
        Encoding.default_external = Encoding::UTF_8
        input, output = IO.for_fd(3, "rb", autoclose: false), IO.for_fd(3, "wb", autoclose: false)
        input.close_on_exec = true
        Json.be_strict
        watch_require
        $LOADED_FEATURES << "brasa.rb" # require "brasa" finds that it is there
        Output.capture($stdout, 1)
        Output.capture($stderr, 2)
        if rehearsing && !IO.select([input], nil, nil, 0) # else it was made for a call that waits for it
          warm
          begin
            rehearse(2)
          rescue Exception => e
            IO.for_fd(2, "wb", autoclose: false).syswrite("brasa: the rehearsal failed, the first call will take longer: #{e.class}: #{e.message}\n")
          end
          GC.start
        end
        reseed("")
        @link = Link.new(input, output)
        @instance = LineLog.new(@link, OWN, 1 << 62)
        $PROGRAM_NAME = "brasa"
        @link.send(Wire.frame(HELLO, OWN, Json.generate({ "protocol" => 1, "runtime" => "ruby", "version" => RUBY_VERSION })))
        serve(@link)
      end

      # Load what comes, and serve it for life.
      def serve(link)
        link.read_one until link.spec
        function = load(link, link.spec) or link.lost(1)
        link.spec["concurrency"] > 1 ? serve_threads(link, function) : serve_inline(link, function)
      end

      # Run the code to its handler. Returns the Function; the host has been told.
      def load(link, spec)
        begun, @spent, @depth = now, 0, 0
        reseed(spec["seed"])
        code = spec["code"]
        Dir.chdir(code) if File.directory?(code)
        (spec["env"] || {}).each { |name, value| ENV[name] = value }
        collecting = GC.disable # what is defined stays; looking through it again and again is in vain
        begin
          paths(code, spec)
          function = Loader.new(code, spec).function
        ensure
          @own = nil
          GC.enable unless collecting
        end
        total = now - begun
        link.send(@instance.rest + Wire.frame(LOADED, OWN, Json.generate({ "dependency_us" => @spent, "code_us" => [total - @spent, 0].max })))
        function
      rescue Exception => e
        leave(e.status) if e.is_a?(SystemExit) && spec["contract"] == "openwhisk"
        fault = Fault.of(e)
        fault["message"] = "the code called exit(#{e.status}) while it was loaded" if e.is_a?(SystemExit)
        link.send(@instance.rest + Wire.frame(LOAD_FAILED, OWN, Json.generate(fault)))
        nil
      end

      # Where require finds things: the code, its lib, then the gems that were installed for it.
      def paths(code, spec)
        entries = Dir.children(code)
        @own = entries.to_h { |n| [n.delete_suffix(".rb"), true] }
        folders = [code]
        if entries.include?("lib")
          folders << "#{code}/lib"
          @own.merge!(Dir.children("#{code}/lib").to_h { |n| [n.delete_suffix(".rb"), true] }) if File.directory?("#{code}/lib")
        end
        forget(@own)
        deps = [*spec["path"], "#{code}/vendor/bundle"].select { |d| File.directory?(d) }
        install(code, deps) unless deps.empty?
        $LOAD_PATH.unshift(*folders)
      end

      # Gems lie as Bundler lays them out. What it wrote for programs that run without it says
      # which directories the library is in, in order, so that nothing has to be searched.
      def install(code, deps)
        require "rbconfig"
        homes = deps.flat_map { |d| Dir["#{d}/ruby/#{RbConfig::CONFIG["ruby_version"]}"] }
        unless homes.empty?
          ENV["GEM_HOME"] = homes.first
          ENV["GEM_PATH"] = homes.join(":")
          ENV["BUNDLE_GEMFILE"] ||= "#{code}/Gemfile" if File.exist?("#{code}/Gemfile")
          ENV["BUNDLE_PATH"] ||= deps.first
          ENV["BUNDLE_WITHOUT"] ||= "development:test"
          Gem.paths = { "GEM_HOME" => homes.first, "GEM_PATH" => homes.join(":") } if @gems
        end
        deps.each do |d|
          setup = "#{d}/bundler/setup.rb"
          Kernel.load(setup) if File.file?(setup)
        end
      end

      # Forget libraries that were loaded before the code was known and that a file of its own
      # would have come before.
      def forget(own)
        $LOADED_FEATURES.reject! do |f|
          own[File.basename(f, ".*")] && f.start_with?("/") && $LOAD_PATH.include?(File.dirname(f)) && f.end_with?(".rb")
        end
      end

      def attend(function, call, group)
        group.call = call
        begin
          value = function.call(call)
          Process.exit!(0) unless call.link.ours? # a child that the handler forked came back here
          function.answer(call, value)
        rescue Exception => e # SystemExit too: it ends the call, not the instance
          Process.exit!(1) unless call.link.ours?
          leave(e.status, call.rest) if e.is_a?(SystemExit) && function.is_a?(Action)
          call.fail(e)
        end
      end

      # End the process as its code asks, after all that it has logged.
      def leave(status, rest = "")
        @link.send(rest + @instance.rest)
        Process.exit!(status)
      end

      # One call at a time on the main thread, which reads for itself: the fastest way.
      def serve_inline(link, function)
        default = Thread.current.group
        loop do
          call = nil
          link.reading.synchronize do
            link.read_one if link.arrived.empty?
            call = link.arrived.shift
          end
          next if call.nil? || !link.calls[call.stream].equal?(call)

          group = Group.new
          group.add(Thread.current)
          attend(function, call, group)
          default.add(Thread.current)
        end
      end

      # Calls on threads, as many as the concurrency; the main thread reads.
      def serve_threads(link, function)
        queue, lock, threads, idle = Thread::Queue.new, Mutex.new, 0, 0
        work = lambda do
          default = Thread.current.group
          while (call = queue.pop)
            group = Group.new
            group.add(Thread.current)
            attend(function, call, group)
            default.add(Thread.current)
            lock.synchronize { idle += 1 }
          end
        end
        link.read_for_all
        link.arrive = lambda do |call|
          grow = lock.synchronize do
            if idle.zero? && threads < link.spec["concurrency"]
              threads += 1
            else
              idle -= 1 if idle.positive?
              nil
            end
          end
          Thread.new(&work) if grow
          queue << call
        end
        waiting, link.arrived[0..] = link.arrived.dup, []
        waiting.each { |call| link.arrive.call(call) }
        loop { link.read_one }
      end

      # What functions need most.
      COMMON = %w[rubygems set time date uri securerandom logger digest base64 tempfile fileutils net/http openssl].freeze

      def warm
        @gems = true
        COMMON.each do |name|
          require name
        rescue LoadError
          nil # a Ruby that was built without it
        end
      end

      # Load a function and call it, as it will happen, with nobody there. What is done for the first
      # time costs more than its work. Nothing of it remains to be seen.
      def rehearse(times)
        require "tmpdir"
        features, path, folder, env = $LOADED_FEATURES.dup, $LOAD_PATH.dup, Dir.pwd, ENV.to_h
        Dir.mktmpdir(".brasa-") do |dir|
          File.write("#{dir}/play.rb", "module BrasaRehearsal\n  def self.play(args)\n    puts \"rehearsal \#{args[\"n\"]}\"\n    { \"n\" => args[\"n\"], \"list\" => [1.5, nil, true] }\n  end\nend\n")
          spec = { "namespace" => "n", "function" => "f", "revision" => "r", "entry" => "play.rb", "handler" => "BrasaRehearsal.play", "code" => dir, "env" => {},
                   "memory_bytes" => 1, "timeout_ms" => 1, "concurrency" => 1, "response_bytes" => 1 << 20, "log_bytes" => 1 << 20, "seed" => "00" * 32 }
          meta = Json.generate({ "id" => "i", "kind" => "http", "method" => "POST", "path" => "/", "query" => "", "headers" => { "Content-Type" => ["application/json"] }, "body" => "whole" })
          call = Wire.frame(CALL, "\0\0\0\1".b, Wire.with_meta(meta) + Json.generate({ "n" => 1, "text" => "x" * 200 }))
          times.times do
            r, w = IO.pipe(binmode: true)
            null = File.open(File::NULL, "wb")
            w.syswrite(Wire.frame(LOAD, OWN, Json.generate(spec)) + call)
            w.close
            @link = Rehearsal.new(r, null)
            @instance = LineLog.new(@link, OWN, 1 << 62)
            catch(:curtain) { serve(@link) }
          ensure
            [r, null].each(&:close)
            $LOADED_FEATURES.replace(features)
            $LOAD_PATH.replace(path)
            Object.send(:remove_const, :BrasaRehearsal) if Object.const_defined?(:BrasaRehearsal)
          end
        end
      ensure
        Dir.chdir(folder)
        ENV.replace(env)
        @link = @instance = nil
      end
    end

    # Ends when there is no more to read.
    class Rehearsal < Link
      def lost(code = 0)
        raise "the rehearsal's function did not load" unless code.zero?

        throw :curtain
      end
    end
  end
  private_constant :Boot

  # Finds the file to run and the handler in it.
  class Loader
    def initialize(code, spec)
      @code, @wanted, @path = code, (spec["handler"] || "").dup, "#{code}/#{spec["entry"]}"
      @main = TOPLEVEL_BINDING.receiver
      @action = spec["contract"] == "openwhisk"
      locate
    end

    def function
      raise Missing, "the code has no file #{@path.delete_prefix("#{@code}/")}" unless File.file?(@path)
      return Function.new(rackup, "the application") if @path.end_with?(".ru") && @wanted.empty?

      before = own_methods
      @path.end_with?(".rb") ? require(@path) : Kernel.load(@path)
      @there = (own_methods - before).map(&:to_s).sort
      @wanted.empty? ? usual : named
    end

    private

    # The handler may begin with the file that it is in: lib/work.run, or as others write it
    # lib.work.run, work.Module::Class.run.
    def locate
      folder, _, _name = @wanted.rpartition(".")
      until folder.empty?
        file = "#{@code}/#{folder.tr(".", "/")}.rb"
        if File.file?(file)
          @path = file
          @wanted = @wanted[(folder.length + 1)..]
          return
        end
        folder = folder.rpartition(".").first
      end
    end

    def own_methods = Object.private_instance_methods(false) + Object.public_instance_methods(false)

    def usual
      DEFAULT_HANDLERS.each { |name| (m = method_of(name)) && (return Function.new(m, name)) }
      raise Missing, "#{File.basename(@path)} defines none of the methods main, handle or handler; #{there}"
    end

    def named
      owner, _, name = @wanted.rpartition(".")
      target = owner.empty? ? method_of(name) : nil
      target ||= constant(@wanted)
      target ||= begin
        holder = constant(owner)
        holder.method(name) if holder.respond_to?(name)
      end
      raise Missing, "#{File.basename(@path)} defines no method #{@wanted}; #{there}" unless target.respond_to?(:call)

      @action ? Action.new(target) : Function.new(target, name)
    end

    def method_of(name)
      m = @main.method(name)
      [Kernel, BasicObject, Comparable].include?(m.owner) ? nil : m
    rescue NameError
      nil
    end

    def constant(name)
      name.match?(/\A[A-Z]\w*(::[A-Z]\w*)*\z/) && Object.const_defined?(name) ? Object.const_get(name) : nil
    end

    def there = @there.empty? ? "it defines no method" : "it defines #{@there.first(10).join(", ")}"

    def rackup
      require "rack"
      begin
        require "rack/builder"
      rescue LoadError
        nil # it is in rack itself
      end
      [*Rack::Builder.parse_file(@path)].first
    rescue LoadError => e
      raise unless e.path == "rack"

      raise Missing, "config.ru needs the gem rack: name it in the Gemfile"
    end
  end
  private_constant :Loader

  Boot.stem(ARGV.delete("stem"))
end
