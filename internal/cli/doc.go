// Package cli is how the command line speaks: results on stdout, talk on stderr, errors that say
// what to do next, exit codes that scripts can trust.
//
// Four ideas carry it. A Printer knows the form that was asked for and whether a person is
// looking; colours, bars and relative times are for people only. A Failure is any error made
// ready for print: its code, what was tried, why it failed, what to do. What a function wrote
// goes through a Cleaner before it meets a terminal, so that no function can move a cursor or
// fill a clipboard. Pack streams a directory as a tar.gz that is the same for the same files.
//
// It knows no command, no route and no server.
package cli
