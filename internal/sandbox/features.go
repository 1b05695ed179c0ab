package sandbox

import "fmt"

// Feature is one thing this kernel and user give or do not.
type Feature struct {
	Name     string
	Have     bool
	Required bool   // without it no sandbox is started
	Detail   string // what was found
	Lost     string // what is lost without it
	Fix      string // what the operator can do; empty if nothing
}

// Features is what a host has, in the order worth reading.
type Features []Feature

// The names of features.
const (
	featurePrivilege  = "root or userns"
	featureUID        = "uid per sandbox"
	featureMountNS    = "mountns"
	featurePIDNS      = "pidns"
	featureNetNS      = "netns"
	featureIPCNS      = "ipc/uts"
	featureCgroupNS   = "cgroupns"
	featureSeccomp    = "seccomp"
	featureNoNewPrivs = "no_new_privs"
	featurePivot      = "pivot_root"
	featureMountAPI   = "mount api"
	featurePidfd      = "pidfd"
	featureMemfd      = "memfd"
	featureSpawner    = "spawner"
	featureMemory     = "cgroup memory"
	featureCPU        = "cgroup cpu"
	featurePIDs       = "cgroup pids"
	featureSwap       = "swap off"
	featureVeth       = "veth"
	featureNftables   = "nftables"
	featureEgress     = "egress"
	featureOverlay    = "overlay"
)

// Has says whether the feature of that name is there; false also for a name there is not.
func (f Features) Has(name string) bool {
	for _, x := range f {
		if x.Name == name {
			return x.Have
		}
	}
	return false
}

func (f Features) lacks(name string) bool { return !f.Has(name) }

// required returns an *UnsupportedError for the first feature that is missing and must not be.
func (f Features) required() error {
	for _, x := range f {
		if x.Required && !x.Have {
			return &UnsupportedError{Feature: x.Name, Why: x.Detail, Fix: x.Fix}
		}
	}
	return nil
}

// describe says in a word which groups there are.
func (l *cgroupLayout) describe() string {
	if l == nil {
		return "none"
	}
	return fmt.Sprintf("v%d", l.version)
}
