// Package wasm runs functions that are WebAssembly modules of WASI preview 1, each call in an
// instance of its own.
//
// It is the inside of two kinds of processes, both this very program begun with a hidden
// argument, and both confined like a function: the compiler, which a deploy runs over a
// stranger's module, and the worker, which loads what the compiler made and serves calls over
// frame protocol 1. The server itself never reads a module.
//
// A worker makes instances ahead of need. Each has a memory that is zero but for the module's own
// data, serves one call and is thrown away; what is kept is the compiled code, which nothing
// writes to, and address space. So no call can see anything of another, be it before, after or
// beside it.
//
// Several calls share the process. What keeps one from harming the others: rewrite (a call that
// computes without end is stopped, and recursion is bounded), slot and share (each has its own
// part of the process' memory), and that a module can name nothing but the functions of WASI, of
// which none opens a file or a socket, for there are none.
//
// How a module is called is written in docs/runtimes/wasm.md.
package wasm
