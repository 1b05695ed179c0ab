package daemon

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
	"github.com/brasa-dev/brasa/internal/policy"
)

// Config is all that can be set about a node. The zero value of a field means its default, which
// applyDefaults sets; it does not change after start. Each key is also an environment variable:
// BRASA_ and the key in capitals with underscores for dots, such as BRASA_RETENTION_AGE.
type Config struct {
	Data   string `koanf:"data"`   // folder of all state
	Listen string `koanf:"listen"` // address of the HTTP listener
	TLS    struct {
		Cert string `koanf:"cert"` // file; with Key: the listener speaks TLS
		Key  string `koanf:"key"`
	} `koanf:"tls"`
	URL  string     `koanf:"url"`  // what clients call this server; default made from Listen
	Node string     `koanf:"node"` // this machine's name in records
	Log  slog.Level `koanf:"log"`  // debug, info, warn, error

	Memory faas.Bytes `koanf:"memory"` // that all instances may hold together; 0: four fifths of the machine's
	Keep   struct {
		Policy string        `koanf:"policy"` // oracle: what was seen of each function decides how long idle instances stay; fixed: idle does. Default oracle, fixed where idle is set
		Idle   time.Duration `koanf:"idle"`   // for fixed: an idle instance stays this long
		Price  policy.Price  `koanf:"price"`  // for oracle: seconds of waiting that a GiB held for an hour must save
	} `koanf:"keep"`
	Stems struct {
		Off    bool       `koanf:"off"`    // no process is started before it is known whose it will be
		Memory faas.Bytes `koanf:"memory"` // that stems may hold together; 0: an eighth of Memory
		// NoForks has processes of Node.js started in need, too.
		NoForks bool `koanf:"no_forks"`
	} `koanf:"stems"`
	ReuseAny  bool          `koanf:"reuse_any"` // functions may have "reuse": "any", which crosses namespaces
	Drain     time.Duration `koanf:"drain"`     // grace for calls in flight when the server stops
	Retention struct {
		Age   time.Duration `koanf:"age"`   // activations and logs are kept this long
		Bytes faas.Bytes    `koanf:"bytes"` // and up to this size
	} `koanf:"retention"`
	Queue struct {
		Function  int `koanf:"function"`  // calls of one function on their way at once
		Namespace int `koanf:"namespace"` // and of one namespace
	} `koanf:"queue"`
	Quota quotaConfig `koanf:"quota"` // how much there may be of each kind
	Async asyncConfig `koanf:"async"` // calls whose caller does not wait
	Chain chainConfig `koanf:"chain"` // calls that lead to others

	Triggers  triggersConfig  `koanf:"triggers"`  // what fires triggers
	OpenWhisk openWhiskConfig `koanf:"openwhisk"` // limits of that API
	Limits    faas.Limits     `koanf:"limits"`    // what a function gets that asks for nothing
	Ceiling   faas.Limits     `koanf:"ceiling"`   // the most that a function may ask for
	Code      struct {
		Bytes   faas.Bytes `koanf:"bytes"`   // of code, unpacked
		Entries int        `koanf:"entries"` // files and folders in it
		Cache   faas.Bytes `koanf:"cache"`   // of unpacked code kept on this node
	} `koanf:"code"`
	Install struct {
		Bytes   faas.Bytes    `koanf:"bytes"`   // of the packages of one function
		Entries int           `koanf:"entries"` // files and folders of them
		Memory  faas.Bytes    `koanf:"memory"`  // that installing may hold
		Timeout time.Duration `koanf:"timeout"` // that it may take
	} `koanf:"install"`
	Registries install.Registries `koanf:"registries"` // where packages come from
	Images     imagesConfig       `koanf:"images"`
	Egress     struct {
		Subnet    string   `koanf:"subnet"`    // addresses of sandboxes with network; empty: the first free one of some
		Allow     []string `koanf:"allow"`     // private ranges that functions with network may reach
		Resolvers []string `koanf:"resolvers"` // DNS servers; default: the host's
		NoAPI     bool     `koanf:"no_api"`    // functions with network can't call this server
		Port      int      `koanf:"port"`      // by which they do; 0: 3233, or a free one if that is taken
	} `koanf:"egress"`
	Profile string `koanf:"profile"` // loopback address for Go's profiles of the server; empty: none
	Prefix  string `koanf:"prefix"`  // names of control groups, interfaces and tables; differs between servers on one machine
}

func (c *Config) applyDefaults() {
	set(&c.Data, DefaultData())
	set(&c.Listen, "127.0.0.1:8080")
	if c.Keep.Policy == "" && c.Keep.Idle != 0 {
		c.Keep.Policy = keepFixed
	}
	set(&c.Keep.Policy, keepOracle)
	set(&c.Keep.Idle, policy.DefaultIdle)
	set(&c.Keep.Price, policy.DefaultPrice)
	set(&c.Drain, 10*time.Second)
	set(&c.Retention.Age, 7*24*time.Hour)
	set(&c.Retention.Bytes, 1*faas.GiB)
	set(&c.Queue.Function, 2000)
	set(&c.Queue.Namespace, 5000)
	c.Limits = c.Limits.Fill(faas.DefaultLimits())
	c.Ceiling = c.Ceiling.Fill(faas.CeilingLimits())
	set(&c.Code.Bytes, 512*faas.MiB)
	set(&c.Code.Entries, 50_000)
	set(&c.Code.Cache, 4*faas.GiB)
	set(&c.Install.Bytes, 2*faas.GiB)
	set(&c.Install.Entries, 200_000)
	set(&c.Install.Memory, 2*faas.GiB)
	set(&c.Install.Timeout, 10*time.Minute)
	if c.Node == "" {
		c.Node, _ = os.Hostname()
		set(&c.Node, "node")
	}
	if c.URL == "" {
		scheme := "http"
		if c.TLS.Cert != "" {
			scheme = "https"
		}
		c.URL = scheme + "://" + reachable(c.Listen)
	}
}

// Values of keep.policy.
const (
	keepOracle = "oracle"
	keepFixed  = "fixed"
)

func set[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// reachable turns an address to listen on into one to call.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if a, err := netip.ParseAddr(host); host == "" || err == nil && a.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// DefaultData is where state lies unless told otherwise: /var/lib/brasa for root, else below the
// user's own data directory as the XDG base directory specification has it.
func DefaultData() string {
	// As root of a user namespace that package sandbox made, the server is an ordinary user's.
	if os.Geteuid() == 0 && os.Getenv("BRASA_USER_NAMESPACE") == "" {
		return "/var/lib/brasa"
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "brasa")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "share", "brasa")
	}
	return filepath.Join(os.TempDir(), "brasa")
}

// Load puts a configuration together: the defaults, then the file if one is named, then the
// environment, then what was set on the command line. Keys that don't exist are an error that
// names them.
func Load(path string, flags map[string]any) (Config, error) {
	var c Config
	k := koanf.New(".")
	if path != "" {
		if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
			return c, fmt.Errorf("read configuration %q: %w", path, err)
		}
	}
	known := keys(reflect.TypeFor[Config](), "")
	byEnv := map[string]string{}
	for _, key := range known {
		byEnv["BRASA_"+strings.ToUpper(strings.ReplaceAll(key, ".", "_"))] = key
	}
	err := k.Load(env.Provider(".", env.Opt{Prefix: "BRASA_", TransformFunc: func(name, v string) (string, any) {
		return byEnv[name], v // "" leaves it out: BRASA_KEY, BRASA_SERVER and others are the client's
	}}), nil)
	if err != nil {
		return c, fmt.Errorf("read environment: %w", err)
	}
	if err := k.Load(confmap.Provider(flags, "."), nil); err != nil {
		return c, fmt.Errorf("read flags: %w", err)
	}
	for _, key := range k.Keys() {
		if !slices.Contains(known, key) {
			return c, fmt.Errorf("there is no key %q; there are %s", key, strings.Join(known, ", "))
		}
	}
	err = k.UnmarshalWithConf("", &c, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		Result: &c, TagName: "koanf", WeaklyTypedInput: true, ErrorUnused: true, MatchName: matchKey,
		DecodeHook: mapstructure.ComposeDecodeHookFunc(decodeUnits, mapstructure.StringToTimeDurationHookFunc(),
			mapstructure.TextUnmarshallerHookFunc(), mapstructure.StringToSliceHookFunc(",")),
	}})
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	c.applyDefaults()
	return c, c.validate()
}

// matchKey lets limits be written with the keys that errors and the API use.
func matchKey(key, field string) bool { return strings.EqualFold(key, field) }

// decodeUnits reads "256MiB" and "30s" into our own types, and plain numbers as the API does:
// bytes and milliseconds.
func decodeUnits(from, to reflect.Type, v any) (any, error) {
	switch to {
	case reflect.TypeFor[faas.Bytes]():
		if s, ok := v.(string); ok {
			return faas.ParseBytes(s)
		}
	case reflect.TypeFor[faas.Duration]():
		s := fmt.Sprint(v)
		if ms, err := strconv.ParseInt(s, 10, 64); err == nil {
			return faas.Duration(time.Duration(ms) * time.Millisecond), nil
		}
		d, err := time.ParseDuration(s)
		return faas.Duration(d), err
	}
	return v, nil
}

// keys lists the keys of a configuration struct.
func keys(t reflect.Type, prefix string) []string {
	var out []string
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("koanf")
		if name == "" {
			continue
		}
		if f.Type.Kind() == reflect.Struct && f.Type != reflect.TypeFor[time.Time]() {
			out = append(out, keys(f.Type, prefix+name+".")...)
			continue
		}
		out = append(out, prefix+name)
	}
	return out
}

// Values lists every key with what came out, in the order of the struct.
func (c Config) Values() []Value { return values(reflect.ValueOf(c), "") }

// Value is one key's setting.
type Value struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

func values(v reflect.Value, prefix string) []Value {
	var out []Value
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("koanf")
		if name == "" {
			continue
		}
		if f := v.Field(i); f.Kind() == reflect.Struct {
			out = append(out, values(f, prefix+name+".")...)
		} else {
			out = append(out, Value{prefix + name, shown(prefix+name, f)})
		}
	}
	return out
}

// shown prints a setting without what is secret in it.
func shown(key string, v reflect.Value) string {
	const hidden = "***"
	switch {
	case !strings.HasPrefix(key, "registries.") || v.IsZero():
		return fmt.Sprint(v.Interface())
	case strings.HasSuffix(key, ".token"), strings.HasSuffix(key, ".password"):
		return hidden
	case v.Kind() == reflect.String:
		return install.Redact(v.String())
	}
	var out []string
	for i := range v.Len() {
		name, address, ok := strings.Cut(v.Index(i).String(), "=") // as scopes are written
		if ok && !strings.Contains(name, "/") {
			out = append(out, name+"="+install.Redact(address))
		} else {
			out = append(out, install.Redact(v.Index(i).String()))
		}
	}
	return fmt.Sprint(out)
}

func (c *Config) validate() error {
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("listen: %q is not an address such as 127.0.0.1:8080", c.Listen)
	}
	if c.Profile != "" && !loopback(c.Profile) {
		return fmt.Errorf("profile: %q is not a loopback address such as 127.0.0.1:6060", c.Profile)
	}
	if c.Keep.Policy != keepOracle && c.Keep.Policy != keepFixed {
		return fmt.Errorf("keep.policy: %q is neither %s nor %s", c.Keep.Policy, keepOracle, keepFixed)
	}
	if c.Keep.Idle < 0 || c.Keep.Price < 0 {
		return fmt.Errorf("keep.idle and keep.price: neither can be less than nothing")
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		return fmt.Errorf("tls.cert and tls.key: set both or neither")
	}
	if _, err := netip.ParsePrefix(c.Egress.Subnet); c.Egress.Subnet != "" && err != nil {
		return fmt.Errorf("egress.subnet: %w", err)
	}
	if c.Egress.Port < 0 || c.Egress.Port > 65535 || c.Egress.Port == 53 {
		return fmt.Errorf("egress.port: %d is no port that functions could call", c.Egress.Port)
	}
	for _, a := range c.Egress.Allow {
		if _, err := netip.ParsePrefix(a); err != nil {
			return fmt.Errorf("egress.allow: %w", err)
		}
	}
	if err := c.Limits.Validate(c.Ceiling); err != nil {
		return fmt.Errorf("limits: %w", err)
	}
	if err := c.Registries.Validate(); err != nil {
		return err
	}
	if err := c.Quota.validate(); err != nil {
		return err
	}
	if err := c.OpenWhisk.validate(); err != nil {
		return err
	}
	if err := c.Triggers.validate(); err != nil {
		return err
	}
	abs, err := filepath.Abs(c.Data)
	if err != nil {
		return fmt.Errorf("data: %w", err)
	}
	c.Data = abs
	return nil
}
