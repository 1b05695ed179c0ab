'use strict';
// A chat with rooms: a page, a list of rooms, and a WebSocket that sends what one says to all in
// the room, the speaker included. Any HTTP server that listens on $PORT is a function.

const http = require('node:http');
const fs = require('node:fs');
const path = require('node:path');
const { accept } = require('./websocket.js');

const page = fs.readFileSync(path.join(__dirname, 'page.html'));
const rooms = new Map(); // name -> Map of socket -> nickname
const MAX_ROOMS = 100;
const MAX_IN_ROOM = 100;

const server = http.createServer((request, response) => {
  const url = new URL(request.url, 'http://function');
  const answer = (status, type, body) => {
    response.writeHead(status, { 'Content-Type': type, 'Content-Length': Buffer.byteLength(body) });
    response.end(request.method === 'HEAD' ? undefined : body);
  };
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    answer(405, 'application/json', JSON.stringify({ error: 'only GET' }));
  } else if (url.pathname === '/') {
    answer(200, 'text/html; charset=utf-8', page);
  } else if (url.pathname === '/rooms') {
    const list = [...rooms].map(([room, people]) => ({ room, people: [...people.values()] }));
    answer(200, 'application/json', JSON.stringify({ rooms: list }));
  } else {
    answer(404, 'application/json', JSON.stringify({ error: `nothing at ${url.pathname}; there are /, /rooms and /ws` }));
  }
});

server.on('upgrade', (request, stream, head) => {
  const url = new URL(request.url, 'http://function');
  if (url.pathname !== '/ws') {
    stream.end('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
    return;
  }
  const room = (url.searchParams.get('room') || 'lobby').slice(0, 40);
  const name = (url.searchParams.get('name') || 'someone').slice(0, 40);
  if (!rooms.has(room) && rooms.size >= MAX_ROOMS || rooms.get(room)?.size >= MAX_IN_ROOM) {
    stream.end('HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
    return;
  }
  const socket = accept(request, stream);
  if (!socket) return;
  if (!rooms.has(room)) rooms.set(room, new Map());
  const people = rooms.get(room);
  people.set(socket, name);
  const tell = (event) => {
    const text = JSON.stringify({ at: new Date().toISOString(), room, ...event });
    for (const other of people.keys()) other.send(text);
  };
  tell({ type: 'joined', name, people: people.size });
  const beat = setInterval(() => socket.ping(), 20000); // keeps what is between us from closing an idle line
  socket.on('message', (message) => {
    if (typeof message === 'string') tell({ type: 'said', name, text: message });
    else socket.send(message); // bytes are echoed to their sender alone
  });
  socket.on('close', () => {
    clearInterval(beat);
    people.delete(socket);
    if (people.size === 0) rooms.delete(room);
    else tell({ type: 'left', name, people: people.size });
  });
  if (head.length) socket.receive(head);
});

server.listen(Number(process.env.PORT), '127.0.0.1');
