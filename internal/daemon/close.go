package daemon

import (
	"errors"
	"fmt"
)

// closers are what was opened, to be closed in reverse.
type closers []closer

type closer struct {
	name  string
	close func() error
}

func (c *closers) add(name string, f func() error) { *c = append(*c, closer{name, f}) }

// close closes all and joins what went wrong to err.
func (c *closers) close(err error) error {
	errs := []error{err}
	for i := len(*c) - 1; i >= 0; i-- {
		if e := (*c)[i].close(); e != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", (*c)[i].name, e))
		}
	}
	return errors.Join(errs...)
}
