package auth

import (
	"errors"
	"fmt"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// storeError makes of what the store answered to a write the error that the caller may act upon.
func storeError(op string, err error) error {
	if errors.Is(err, store.ErrFull) {
		e := &faas.Error{Code: faas.Unavailable, Op: op, Err: err}
		return e.WithLimit("store_bytes").WithFix("nothing was changed; the operator has to make room on the server's disk")
	}
	return fmt.Errorf("%s: %w", op, err)
}
