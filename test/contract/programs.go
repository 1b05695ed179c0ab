package contract

import "testing"

func (s *Suite) executables(t *testing.T) {}
func (s *Suite) lines(t *testing.T)       {}
func (s *Suite) servers(t *testing.T)     {}
