// Handlers that take the event, in an ECMAScript module.
export async function handle(event, context) {
  switch (event.path) {
    case '/echo':
      return { statusCode: 200, headers: { 'Content-Type': 'application/octet-stream' }, body: event.stream() };
    case '/size':
      return { size: (await event.bytes()).length };
    case '/ignore':
      return 'ignored';
    case '/request':
      return {
        method: event.method, query: event.query, all: event.searchParams.getAll('a'),
        header: event.header('X-THING'), args: event.args, text: await event.text(),
      };
  }
  return { statusCode: 404, body: 'none' };
}
