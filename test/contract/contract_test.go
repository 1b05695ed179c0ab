package contract

import "testing"

// TestStems runs the suite with processes that are told whose they are only when they are loaded.
func TestStems(t *testing.T) {
	s := NewSuite(t, Plain{Stems: true})
	t.Cleanup(s.Close)
	s.Run(t)
}

func TestPlain(t *testing.T) {
	s := NewSuite(t, Plain{})
	t.Cleanup(s.Close)
	s.Run(t)
}
