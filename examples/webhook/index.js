'use strict';
// Receives webhooks: checks who sent them, that they are fresh and that they are new, and says
// what was done with each.

const { verify, Deliveries } = require('./signature.js');

const secret = process.env.WEBHOOK_SECRET;
if (!secret) {
  // While the code loads, so that a deploy without the secret fails and says why.
  throw new Error('WEBHOOK_SECRET is not set; put it with brasa secret put WEBHOOK_SECRET and deploy with --secret WEBHOOK_SECRET');
}

const deliveries = new Deliveries();

// What to do with each type of event. Answer soon: a sender that waits too long sends again.
const actions = {
  ping: () => 'pong',
  'order.paid': (event) => `order ${event.order} is paid`,
};

function answer(statusCode, body) {
  return { statusCode, headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) };
}

async function handle(event) {
  if (event.method !== 'POST') return answer(405, { error: 'webhooks are sent with POST' });
  const raw = await event.bytes();
  const now = Date.now() / 1000;
  const why = verify(event.header('x-signature'), raw, secret, now);
  if (why) {
    console.warn(`refused: ${why}`);
    return answer(401, { error: why });
  }
  let message;
  try {
    message = JSON.parse(raw.toString());
  } catch (e) {
    return answer(400, { error: `the body is not JSON: ${e.message}` });
  }
  const { id, type } = message ?? {};
  if (typeof id !== 'string' || typeof type !== 'string') {
    return answer(400, { error: 'an event has an id and a type, both text' });
  }
  if (!deliveries.first(id, now)) return answer(200, { received: true, id, duplicate: true });
  const action = Object.hasOwn(actions, type) ? actions[type] : null;
  const done = action ? action(message) : 'ignored'; // 200 all the same: it will not change by sending it again
  console.log(`${type} ${id}: ${done}`);
  return answer(200, { received: true, id, done });
}

module.exports = { handle };
