package daemon

import "fmt"

// quotaConfig says how much of each kind the catalog holds; 0 is its default.
type quotaConfig struct {
	Namespaces int `koanf:"namespaces"`
	Functions  int `koanf:"functions"` // of one namespace, as all that follow
	Packages   int `koanf:"packages"`
	Triggers   int `koanf:"triggers"`
	Rules      int `koanf:"rules"`
	Secrets    int `koanf:"secrets"`
}

func (q quotaConfig) validate() error {
	for key, n := range map[string]int{"namespaces": q.Namespaces, "functions": q.Functions, "packages": q.Packages, "triggers": q.Triggers, "rules": q.Rules, "secrets": q.Secrets} {
		if n < 0 {
			return fmt.Errorf("quota.%s: %d is less than nothing", key, n)
		}
	}
	return nil
}
