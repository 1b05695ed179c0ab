package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

func TestConfigurationIsPutTogetherInOrder(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "brasa.yaml")
	text := `
data: ` + dir + `
listen: 127.0.0.1:1
retention: {age: 48h, bytes: 5MiB}
limits: {memory_bytes: 64MiB, timeout_ms: 2000}
egress: {allow: [10.1.0.0/16]}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("BRASA_LISTEN", "127.0.0.1:2")
	t.Setenv("BRASA_RETENTION_AGE", "24h")
	t.Setenv("BRASA_LIMITS_PIDS", "7")
	t.Setenv("BRASA_KEY", "not the server's")
	c, err := Load(file, map[string]any{"listen": "127.0.0.1:3"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:3" || c.URL != "http://127.0.0.1:3" {
		t.Errorf("listen %q, url %q; the flag wins", c.Listen, c.URL)
	}
	if c.Retention.Age != 24*time.Hour || c.Retention.Bytes != 5*faas.MiB {
		t.Errorf("retention %+v; the environment wins over the file", c.Retention)
	}
	if c.Limits.Memory != 64*faas.MiB || c.Limits.Timeout.D() != 2*time.Second || c.Limits.PIDs != 7 || c.Limits.Tmp != faas.DefaultLimits().Tmp {
		t.Errorf("limits %+v", c.Limits)
	}
	if len(c.Egress.Allow) != 1 {
		t.Errorf("egress %+v", c.Egress)
	}
}

func TestBadConfigurationIsRefusedByName(t *testing.T) {
	for key, value := range map[string]any{
		"nonsense": "x", "retention.agee": "1h", "listen": "8080", "egress.subnet": "x", "egress.allow": []string{"x"}, "profile": "0.0.0.0:1", "keep.policy": "best", "keep.price": -1, "quota.functions": -1,
		"memory": "much", "limits.memory_bytes": "1B", "tls.cert": "file", "log": "loud", "triggers.files": []string{"srv/incoming"}, "triggers.allow": []string{"db"},
	} {
		name, _, _ := strings.Cut(key, ".")
		if _, err := Load("", map[string]any{key: value}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s = %v: %v, want an error that names it", key, value, err)
		}
	}
}

// Registries of images are a list in the file, and their credentials are shown nowhere.
func TestRegistriesOfImages(t *testing.T) {
	file := filepath.Join(t.TempDir(), "brasa.yaml")
	text := "images:\n  registries:\n    - {host: ghcr.io, user: me, password: hidden-1}\n    - {host: \"r.example:5000\", token: hidden-2, plain: true, mirrors: [a, b]}\n  limits: {bytes: 5GiB}\n  push: {untagged: 24h, blob_bytes: 7MiB}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := c.Images.Registries
	if len(r) != 2 || r[0].Password != "hidden-1" || !r[1].Plain || len(r[1].Mirrors) != 2 || c.Images.Limits.Bytes != 5*faas.GiB || c.Images.Push.Untagged != 24*time.Hour || c.Images.Push.Blob != 7*faas.MiB {
		t.Errorf("read as %+v", c.Images)
	}
	shown := fmt.Sprint(c.Values())
	if strings.Contains(shown, "hidden") || !strings.Contains(shown, "ghcr.io (with credentials)") {
		t.Errorf("shown as %s", shown)
	}
}

// Whoever says how long an idle instance stays means that, and not what the oracle thinks of it.
func TestAFixedTimeToKeepTurnsTheOracleOff(t *testing.T) {
	for _, tt := range []struct {
		set  map[string]any
		want string
	}{
		{nil, "oracle"}, {map[string]any{"keep.idle": "1m"}, "fixed"}, {map[string]any{"keep.policy": "fixed"}, "fixed"},
		{map[string]any{"keep.policy": "oracle", "keep.idle": "1m"}, "oracle"},
	} {
		c, err := Load("", tt.set)
		if err != nil || c.Keep.Policy != tt.want || c.Keep.Idle <= 0 || c.Keep.Price <= 0 {
			t.Errorf("%v: %+v, %v; want %s", tt.set, c.Keep, err, tt.want)
		}
	}
}
