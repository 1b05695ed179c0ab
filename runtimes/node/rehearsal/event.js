// What a stem of Node.js rehearses with: a function that takes the whole request.
exports.handler = async (event) => ({
  statusCode: 200, headers: { 'X-Path': event.path }, body: event.header('content-type') + event.query.a + (await event.text()),
});
