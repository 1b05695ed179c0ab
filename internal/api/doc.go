// Package api is the native dialect: its routes, its wire types, the server and a Go client.
//
// Every answer is one envelope, {"ok":true,"data":...} or {"ok":false,"error":{...}}; the error
// says what happened, what to do next, which limit was broken and the request it belongs to. The
// exceptions are answers that are a function's own bytes: its URL, and calls with raw=true.
//
// Management routes are described once, as Go types; the OpenAPI document, the validation and
// the client's types come from that description. The routes on which a function is called
// stream both ways and are written by hand, but stand in the same document.
//
// Listeners, request ids, who is asking and time-outs are left to package gateway; when and where
// a function runs, to package dispatch.
package api
