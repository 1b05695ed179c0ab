// Package bench measures a running server beside plain servers in one run, and prints both and
// their ratio.
//
// Machines are shared and noisy, so no figure stands alone: the sides take turns in short blocks,
// and what is compared was measured within the same seconds. Load comes from this process over
// loopback, on the same cores as the servers; its own cost is part of every side.
package bench
