package daemon

import (
	"fmt"
	"strings"
	"testing"
)

func TestConfigurationIsShownWithoutCredentials(t *testing.T) {
	const canary = "canary-77aa"
	c, err := Load("", map[string]any{
		"registries.python.index": "https://u:" + canary + "@packages.example/simple", "registries.python.extra": []string{"https://" + canary + "@more.example/simple"},
		"registries.npm.token": canary, "registries.npm.scopes": []string{"@own=https://npm.example#" + canary}, "registries.maven.password": canary,
	})
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprint(c.Values())
	if strings.Contains(all, canary) {
		t.Errorf("a credential is shown: %s", all)
	}
	for _, want := range []string{"packages.example", "more.example", "@own=https://npm.example"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not shown: %s", want, all)
		}
	}
}
