package sandbox

import (
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Config says how a Host confines. The zero value of a field means its default.
type Config struct {
	// Dir holds what must be found again after a crash: a small lease file. It is made if
	// absent. Two hosts cannot share one. Required.
	Dir string
	// RootDirs are directories of the host that sandboxes see, read-only, at the same path,
	// besides /usr and what belongs to it (/bin, /sbin, /lib, /lib64).
	RootDirs []string
	// Prefix names cgroups, interfaces and the packet filter's table, so that two servers on
	// one machine do not meet. One to eight letters or digits; default "brasa".
	Prefix string
	// UIDBase and UIDCount are the range of user ids of which every live sandbox has one of
	// its own. Default 60000 from 0x42000000, or, for another prefix than the default one, from
	// a place above that follows from the prefix.
	UIDBase, UIDCount int
	// NetPool, EgressPool, CgroupPool and NestPool say how many ready objects are kept: empty
	// network namespaces (default 16), ones with a way out (default 4), cgroups (default 16),
	// sets of the other namespaces (default 16). A negative number means none: they are then
	// made when they are needed.
	NetPool, EgressPool, CgroupPool, NestPool int
	// Spawners is the number of spawner processes; default one per core, at most four.
	Spawners int
	// GoInit makes the binary itself the spawner instead of the small embedded program, as
	// happens by itself where that one cannot run. Slower; for tests and odd machines.
	GoInit bool
	// Egress says where sandboxes with Network may go.
	Egress EgressConfig
	// Logger receives changes of state; nil means silent.
	Logger *slog.Logger
}

// EgressConfig says where sandboxes with Network may go. The open Internet is allowed, the
// host, other sandboxes, link-local and private addresses are not.
type EgressConfig struct {
	// Off leaves the machine's forwarding and packet filter alone; Start refuses sandboxes with
	// Network.
	Off bool
	// Subnet holds the gateway (its first address) and one address per sandbox. It is never
	// seen outside the host. IPv4, /24 or larger; default the first of 100.115.0.0/16 to
	// 100.127.0.0/16 that this machine has no route to.
	Subnet netip.Prefix
	// Allow opens private ranges. Loopback, link-local (and so metadata services) and other
	// sandboxes stay closed whatever it says.
	Allow []netip.Prefix
	// Resolvers are the name servers asked on behalf of sandboxes, "address" or
	// "address:port"; default those of the host's /etc/resolv.conf.
	Resolvers []string
	// Door opens one port at the gateway's address to sandboxes that have Spec.Door; who answers
	// there is for the owner of Host.Door. Nothing else of the host can be reached.
	Door bool
	// DoorPort is that port; default 3233, or any free one if that is taken.
	DoorPort int
	// Connections is how many connections one sandbox may hold through the gateway; default 512.
	Connections int
}

var prefixForm = regexp.MustCompile(`^[a-z][a-z0-9]{0,7}$`)

func (c *Config) applyDefaults() error {
	if c.Dir == "" {
		return errors.New("sandbox: Config.Dir is empty")
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return fmt.Errorf("sandbox directory %q: %w", c.Dir, err)
	}
	c.Dir = dir
	if c.Prefix == "" {
		c.Prefix = "brasa"
	}
	// No dash: interfaces are "<prefix>-<n>", matched by "<prefix>-*", and one server's
	// pattern must not match another's names.
	if !prefixForm.MatchString(c.Prefix) {
		return fmt.Errorf("sandbox prefix %q: want a letter and up to seven letters or digits, lower case", c.Prefix)
	}
	for i, d := range c.RootDirs {
		if !filepath.IsAbs(d) {
			return fmt.Errorf("sandbox root directory %q: not an absolute path", d)
		}
		c.RootDirs[i] = filepath.Clean(d)
	}
	setInt := func(v *int, def int) {
		switch {
		case *v == 0:
			*v = def
		case *v < 0:
			*v = 0
		}
	}
	setInt(&c.UIDBase, uidBase(c.Prefix))
	setInt(&c.UIDCount, 60000)
	setInt(&c.NetPool, 16)
	setInt(&c.EgressPool, 4)
	setInt(&c.CgroupPool, 16)
	setInt(&c.NestPool, 16)
	setInt(&c.Spawners, defaultSpawners())
	c.Spawners = max(c.Spawners, 1)
	if c.UIDCount < 1 {
		return errors.New("sandbox: Config.UIDCount is negative")
	}
	setInt(&c.Egress.Connections, 512)
	c.Egress.Subnet = c.Egress.Subnet.Masked() // the zero prefix stays what it is
	if c.Egress.Subnet.IsValid() && (!c.Egress.Subnet.Addr().Is4() || c.Egress.Subnet.Bits() > 24) {
		return fmt.Errorf("sandbox egress subnet %s: want IPv4 of /24 or larger", c.Egress.Subnet)
	}
	if len(c.Egress.Resolvers) == 0 {
		c.Egress.Resolvers = hostResolvers("/etc/resolv.conf")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// uidBase keeps the user ids of two servers on one machine apart: the kernel counts processes,
// keys and pending signals per id.
func uidBase(prefix string) int {
	const base, slot, slots = 0x42000000, 1 << 16, 256
	if prefix == "brasa" {
		return base
	}
	h := fnv.New32a()
	h.Write([]byte(prefix))
	return base + slot*(1+int(h.Sum32()%(slots-1)))
}

// gateway is the one address of the host that sandboxes may speak to: to ask for names, and at the
// door.
func (c *EgressConfig) gateway() netip.Addr { return c.Subnet.Addr().Next() }

// hostResolvers returns the name servers of a resolv.conf; none when it cannot be read.
func hostResolvers(path string) []string {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var servers []string
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "nameserver" {
			servers = append(servers, f[1])
		}
	}
	return servers
}
