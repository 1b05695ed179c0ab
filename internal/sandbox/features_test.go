package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestProbeSaysWhatThereIs(t *testing.T) {
	f := Probe()
	seen := map[string]bool{}
	for _, x := range f {
		if seen[x.Name] || x.Detail == "" || x.Lost == "" {
			t.Errorf("%+v", x)
		}
		seen[x.Name] = true
		t.Logf("%-18s %-5v %s", x.Name, x.Have, x.Detail)
	}
	if f.Has("no such feature") {
		t.Error("Has of a name there is not")
	}
	needRoot(t)
	for _, name := range []string{featurePrivilege, featureUID, featureMountNS, featureSeccomp, featureSpawner, featureMountAPI} {
		if !f.Has(name) {
			t.Errorf("no %s", name)
		}
	}
}

func TestMissingRequirementIsRefused(t *testing.T) {
	f := Features{{Name: "a"}, {Name: "b", Required: true, Have: true}, {Name: "c", Required: true, Detail: "not here", Fix: "get one"}}
	var no *UnsupportedError
	if err := f.required(); !errors.As(err, &no) || no.Feature != "c" || err.Error() != "this host has no c: not here; get one" {
		t.Errorf("got %v", err)
	}
	if err := f[:2].required(); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, c := range []Config{
		{},
		{Dir: "x", Prefix: "Upper"},
		{Dir: "x", Prefix: "with-dash"},
		{Dir: "x", Prefix: "muchtoolong"},
		{Dir: "x", RootDirs: []string{"relative"}},
	} {
		if err := c.applyDefaults(); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
	c := Config{Dir: "x", NetPool: -1}
	must(t, c.applyDefaults())
	if c.NetPool != 0 || c.CgroupPool == 0 || c.Prefix != "brasa" || !filepath.IsAbs(c.Dir) {
		t.Errorf("%+v", c)
	}
}

func TestCgroupsAreFound(t *testing.T) {
	for _, c := range []struct {
		name, mountinfo, self string
		want                  []cgroupMount
	}{
		{"v1, each on its own",
			"30 25 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:3 - cgroup cgroup rw,cpu,cpuacct\n32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n33 25 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n",
			"4:memory:/jobs/a\n2:cpu,cpuacct:/\n1:name=systemd:/x\n0::/\n",
			[]cgroupMount{
				{controllers: []string{"memory"}, own: "/sys/fs/cgroup/memory/jobs/a"},
				{controllers: []string{"cpu", "cpuacct"}, own: "/sys/fs/cgroup/cpu,cpuacct"},
				{v2: true, own: "/sys/fs/cgroup/unified"},
			}},
		{"v2, a systemd unit",
			"30 25 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n",
			"0::/system.slice/brasa.service\n",
			[]cgroupMount{{v2: true, own: "/sys/fs/cgroup/system.slice/brasa.service"}}},
		{"v2, in a container that shows a part",
			"30 25 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
			"0::/docker/abc/inner\n",
			[]cgroupMount{{v2: true, own: "/sys/fs/cgroup/inner"}}},
		{"nothing", "", "", nil},
	} {
		if got := findCgroups(c.mountinfo, c.self); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestIDMapsAreRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "uid_map")
	for text, want := range map[string]bool{
		"         0          0 4294967295\n": true,
		"         0       1000          1\n": false,
		"0 100000 65536\n":                   false,
		"0 0 1000\n1107296256 7 60000\n":     true,
		"":                                   false,
	} {
		must(t, os.WriteFile(file, []byte(text), 0o644))
		if got := mapsManyIDs(file, 0x42000000, 60000); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestHostUser(t *testing.T) {
	file := filepath.Join(t.TempDir(), "uid_map")
	for text, want := range map[string]int{
		"         0          0 4294967295\n": 0,
		"         0       1000          1\n": 1000,
		"1 5 10\n0 100000 65536\n":           100000,
		"7 1000 1\n":                         0,
		"":                                   0,
	} {
		must(t, os.WriteFile(file, []byte(text), 0o644))
		if got := hostUser(file, 0); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
	if got := hostUser("/no/such/file", 3); got != 3 {
		t.Errorf("without a map: %d", got)
	}
}

func TestHostResolvers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	must(t, os.WriteFile(file, []byte("# comment\nsearch x\nnameserver 192.0.2.1\nnameserver 2001:db8::1\noptions ndots:5\n"), 0o644))
	if got := strings.Join(hostResolvers(file), " "); got != "192.0.2.1 2001:db8::1" {
		t.Errorf("got %q", got)
	}
	if got := hostResolvers("/no/such/file"); got != nil {
		t.Errorf("got %q", got)
	}
}

// Only what everyone may read on the host comes into the root.
func TestEtcTellsNothing(t *testing.T) {
	host := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(host, "ssl/certs"), 0o755))
	must(t, os.MkdirAll(filepath.Join(host, "ssl/private"), 0o700))
	for name, mode := range map[string]os.FileMode{"ssl/certs/ca.pem": 0o644, "ssl/certs/own.key": 0o600, "ssl/private/host.key": 0o600, "shadow": 0o640, "passwd": 0o644, "services": 0o644} {
		must(t, os.WriteFile(filepath.Join(host, name), []byte(name), mode))
	}
	must(t, os.Symlink("ca.pem", filepath.Join(host, "ssl/certs/link.0")))
	dir := t.TempDir()
	top, err := os.OpenRoot(dir)
	must(t, err)
	defer top.Close()
	must(t, top.Mkdir("etc", 0o755))
	must(t, makeEtc(top, host, EgressConfig{}.Subnet.Addr()))
	for name, want := range map[string]bool{"ssl/certs/ca.pem": true, "ssl/certs/link.0": true, "services": true, "ssl/certs/own.key": false, "ssl/private": false, "shadow": false} {
		if _, err := os.Lstat(filepath.Join(dir, "etc", name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "etc/passwd")); strings.TrimSpace(string(text)) == "passwd" {
		t.Error("the host's passwd was copied")
	}
}
