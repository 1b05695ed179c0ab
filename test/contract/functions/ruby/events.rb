# Handlers that take the event.
def handle(event, _context)
  case event.path
  when "/echo" then Brasa::Response.new(event.stream, headers: { "Content-Type" => "application/octet-stream" })
  when "/size" then { size: event.body.bytesize }
  when "/ignore" then "ignored"
  when "/request"
    {
      method: event.method, query: event.query, all: event.query.all("a"), header: event.headers["x-thing"],
      args: event.args, text: event.text,
    }
  else Brasa::Response.new("none", status: 404)
  end
end
