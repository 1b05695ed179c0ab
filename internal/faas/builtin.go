package faas

// RuntimeBuiltin is the runtime of functions that the server brings and answers by itself: no code of
// theirs is started. Their Entry says which it is.
const RuntimeBuiltin = "builtin"
