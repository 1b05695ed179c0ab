// Package bench measures a server beside plain servers in one run, and prints all sides and their
// ratios.
//
// Machines are shared and noisy, so no figure stands alone: what is compared takes turns in short
// blocks and was measured within the same seconds. Load comes from this process over loopback, on
// the same processors as the servers; its own cost is part of every side.
//
// Measurements ask as a user would, through the API and the activations' own words; only functions
// that are to be cold by the thousand are written into the data folder of a stopped server, since
// a deploy starts each once. What every figure means is written in docs/benchmarks.md.
package bench
