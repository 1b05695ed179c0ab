package deploy_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/deploy"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/faulttest"
)

// A full disk is said in words, without where the server keeps its files, and leaves what was live.
func TestADeployOnAFullDisk(t *testing.T) {
	disk := faulttest.SmallDisk(t, "8m")
	s := newShop(t, func(c *deploy.Config) { c.Dir = filepath.Join(disk, "deploy") })
	req := func() deploy.Request {
		r := request("f.py", good)
		r.Contract, r.Language, r.Filename, r.Unproved = faas.ContractOpenWhisk, "python", "", true
		return r
	}
	first, err := s.Deploy(t.Context(), req(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(disk, "ballast")
	faulttest.Fill(t, ballast, 0)
	for _, r := range []deploy.Request{req(), request("f.py", good+"#")} {
		_, err = s.Deploy(t.Context(), r, nil)
		if e := faas.AsError(err); e.Code != faas.Unavailable || e.Limit != "store_bytes" || e.Fix == "" || strings.Contains(e.Error(), disk) {
			t.Errorf("%v, want Unavailable with a fix, and no path of the server", err)
		}
	}
	if fn, err := s.catalog.Function(first.Revision.Name); err != nil || fn.Active != first.Revision.ID {
		t.Errorf("active is %+v, %v", fn, err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Deploy(t.Context(), req(), nil); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(disk, "deploy", "work")); err != nil || len(left) > 0 {
		t.Errorf("work left behind: %v, %v", left, err)
	}
}
