package policy_test

import (
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/policy"
)

func tenant(starting int, held faas.Bytes) policy.Tenant {
	return policy.Tenant{Starting: starting, Held: held}
}

func TestOneStartIsLeftToOthers(t *testing.T) {
	if !policy.MayStart(5, 0, tenant(0, 0)) || !policy.MayStart(5, 3, tenant(3, 0)) {
		t.Error("one alone may not start")
	}
	if policy.MayStart(5, 4, tenant(4, 0)) {
		t.Error("one takes all places")
	}
	if !policy.MayStart(5, 4, tenant(0, 0)) {
		t.Error("another does not get the one that is left")
	}
	if policy.MayStart(5, 5, tenant(0, 0)) {
		t.Error("there are more than there may be")
	}
	if !policy.MayStart(1, 0, tenant(0, 0)) {
		t.Error("where there is one place nobody gets it")
	}
}

func TestOneLeavesMemoryToOthers(t *testing.T) {
	const total = 800
	for _, tt := range []struct {
		what    string
		held    faas.Bytes
		tenants int
		want    bool
	}{
		{"alone it may have all", 700, 1, true},
		{"beside another, up to seven eighths", 600, 2, true},
		{"and no more", 650, 2, false},
		{"but always one", 0, 2, true},
	} {
		if got := policy.MayHold(total, 100, tenant(0, tt.held), tt.tenants); got != tt.want {
			t.Errorf("%s: %v", tt.what, got)
		}
	}
	if !policy.MayHold(100, 100, tenant(0, 0), 2) {
		t.Error("one instance that takes all there is is never made")
	}
}

func TestNextFedIsWhoHasLeast(t *testing.T) {
	flood, small := policy.Hungry{Tenant: tenant(3, 900), Need: 10}, policy.Hungry{Tenant: tenant(0, 10), Need: 10}
	for _, tt := range []struct {
		what string
		all  []policy.Hungry
		want int
	}{
		{"nobody", nil, -1},
		{"whoever came first, of equals", []policy.Hungry{small, small}, 0},
		{"who has no more than is fair", []policy.Hungry{flood, flood, small}, 2},
		{"who has more, when nobody else waits", []policy.Hungry{flood}, 0},
		{"of those that have what is fair, who starts least", []policy.Hungry{{Tenant: tenant(2, 100), Need: 10}, {Tenant: tenant(1, 100), Need: 10}}, 1},
	} {
		if got := policy.NextFed(tt.all, 500); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.what, got, tt.want)
		}
	}
}

func TestIdleInstancesAreSafeFromAFlood(t *testing.T) {
	flood, small := tenant(0, 900), tenant(0, 10)
	if !policy.Safe(small, flood, 10, 500, time.Second) {
		t.Error("a flood ends what another uses each second")
	}
	if policy.Safe(small, flood, 10, 500, 2*time.Minute) {
		t.Error("what nobody uses is kept from who needs it")
	}
	if policy.Safe(flood, small, 10, 500, time.Second) {
		t.Error("the flood's own is kept from who has little")
	}
	if !policy.GivesWay(flood, small, 10, 500) || policy.GivesWay(small, flood, 10, 500) || policy.GivesWay(tenant(0, 500), small, 10, 500) {
		t.Error("the wrong one gives way")
	}
}

func TestWeightsDivideProcessorsByNamespace(t *testing.T) {
	for _, tt := range []struct{ millis, working, tenants, want int }{
		{1000, 1, 2, 1000}, {1000, 2, 2, 1000}, {1000, 4, 2, 500}, {1000, 64, 2, 31}, {1000, 64, 1, 1000}, {1000, 100_000, 2, 10}, {100, 1, 2, 100},
	} {
		if got := policy.Weight(tt.millis, tt.working, 2, tt.tenants); got != tt.want {
			t.Errorf("Weight(%d, %d of 2 processors, %d tenants) = %d, want %d", tt.millis, tt.working, tt.tenants, got, tt.want)
		}
	}
}
