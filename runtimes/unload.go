package runtimes

// Unload says that the process has been put back, from outside, to where it waited for its
// function: it may be given another one by Begin. No call may be under way, and nobody may be in
// Load or Loaded.
func (c *Conn) Unload() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.loaded = make(chan struct{})
	c.load, c.loadErr = Loaded{}, nil
	c.opts.Response = 0
}
