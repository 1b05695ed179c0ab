package contract

import "testing"

func TestPlain(t *testing.T) {
	s := NewSuite(t, Plain{})
	t.Cleanup(s.Close)
	s.Run(t)
}
