package policy

// StemConfig bounds how many stems of one class wait.
type StemConfig struct {
	Base int // that wait though nobody has asked for one lately
	Max  int // that never are exceeded
}

// Stems returns how many stems of a class shall wait, from how many were claimed in the busiest
// second of late.
//
// Bursts come again: what a burst took is what the next one of its kind will take before the
// first of it can be replaced. Half as much again covers one that is larger.
func Stems(c StemConfig, busiest int) int {
	return min(max(c.Base, busiest+busiest/2), max(c.Max, c.Base))
}

// Claims counts events of the last minute by the second, so that the busiest one is known. The
// zero value has seen none.
type Claims struct {
	second [claimWindow]int64 // which second a count is of, in Unix time
	count  [claimWindow]int
}

const claimWindow = 60 // seconds

// Add counts one event at the given second of Unix time.
func (c *Claims) Add(second int64) {
	i := int(((second % claimWindow) + claimWindow) % claimWindow)
	if c.second[i] != second {
		c.second[i], c.count[i] = second, 0
	}
	c.count[i]++
}

// Busiest returns the count of the busiest second among the last sixty before now.
func (c *Claims) Busiest(now int64) int {
	most := 0
	for i, s := range c.second {
		if now-s < claimWindow && s <= now {
			most = max(most, c.count[i])
		}
	}
	return most
}
