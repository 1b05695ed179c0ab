package policy

import "time"

// parkLoad is how long a function's own code must take to load for an instance to be loaded ahead
// where each serves one call: below it a stem and the load cost about what parking saves.
const parkLoad = 5 * time.Millisecond

// maxPark is how many instances of a function ever wait unused.
const maxPark = 64

// Park returns how many initialised instances of a function shall wait that no call has used,
// where each serves one call and is then replaced. load is what its code takes to load, busiest
// how many were asked for in the busiest second of the last minute. Those that are rewound serve
// many, one at a time, so that one of them is as good as many others; it is kept as long as the
// function is in use, however quickly it loads.
func Park(load time.Duration, busiest int, rewound bool) int {
	switch {
	case busiest == 0:
		return 0
	case rewound:
		return 1
	case load < parkLoad:
		return 0
	}
	return min(busiest+busiest/2, maxPark)
}
