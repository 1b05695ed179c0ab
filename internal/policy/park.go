package policy

import "time"

const (
	// parkOnce is how long a function's own code must take to load for instances to be loaded ahead
	// where each serves one call: below it a stem and the load cost about what parking saves.
	parkOnce = 5 * time.Millisecond
	// ParkLoad is the same where an instance serves many calls, so that few ever wait for one.
	ParkLoad = 20 * time.Millisecond
	// ParkKeep is for how long after its last call a function has an instance that nobody has used.
	ParkKeep = time.Hour
	// maxPark is how many instances of a function ever wait unused.
	maxPark = 64
)

// Use is what was seen of a function's calls.
type Use struct {
	Load    time.Duration // what its code takes to load
	Busiest int           // calls that asked for an instance of their own in the busiest second of the last minute
	Idle    time.Duration // since the last call
	OneCall bool          // a process serves one call and is replaced, unless it is rewound
	Rewound bool          // it is
}

// Park returns how many initialised instances of a function shall wait that no call has used.
//
// Where each serves one call, as many as the busiest second asked for, if they are dear to load.
// One that is rewound serves many, one at a time, and is as good as many others, so there is one as
// long as the function is in use, however quickly it loads. Where an instance serves many calls,
// one that is dear to load stays ready beside those in use, and after they have gone: what others
// would keep as a template.
func Park(u Use) int {
	switch {
	case !u.OneCall:
		if u.Load >= ParkLoad && u.Idle < ParkKeep {
			return 1
		}
		return 0
	case u.Busiest == 0:
		return 0
	case u.Rewound:
		return 1
	case u.Load < parkOnce:
		return 0
	}
	return min(u.Busiest+u.Busiest/2, maxPark)
}
