package policy

// Fork says whether the next stem of a class is to be forked where a started process is the rule
// and a fork what helps in need: ready are the stems that wait, booted those of them, and of those
// that are being made, that were started.
//
// A pool that a burst has emptied needs one at once. What stands beyond the usual stock stands only
// because of a burst, and is dropped a minute after it; to boot it would take the processor from the
// very calls that it is for.
func Fork(c StemConfig, ready, booted, busiest int) bool {
	return ready == 0 && busiest >= max(c.Base, 1) || booted >= c.Base
}
