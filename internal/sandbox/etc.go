package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// etcCopies are what programs look for in /etc and what tells nothing about the host:
// certificates, the choice among alternatives, tables of names, settings of OpenSSL and of Java
// (whose /usr/lib/jvm points here), the time zone.
var etcCopies = []string{
	"alternatives", "ssl/certs", "ssl/openssl.cnf", "ca-certificates", "ca-certificates.conf",
	"pki/tls/certs", "pki/ca-trust/extracted", "java-*", "ld.so.cache", "ld.so.conf", "ld.so.conf.d",
	"localtime", "timezone", "protocols", "services", "rpc", "mime.types", "gai.conf", "host.conf",
	"locale.alias", "locale.conf", "default/locale", "python3*", "os-release", "debian_version", "magic", "inputrc",
}

// etcFiles are the same for every sandbox. passwd and hosts are covered by the sandbox's own.
func etcFiles(gateway netip.Addr) map[string]string {
	// A sandbox without network is refused at once, by the gateway or by its own loopback.
	resolver := ""
	if gateway.IsValid() {
		resolver = fmt.Sprintf("nameserver %s\noptions timeout:2 attempts:2\n", gateway)
	}
	return map[string]string{
		"passwd":        "root:x:0:0:root:/:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
		"group":         "root:x:0:\nnogroup:x:65534:\n",
		"hosts":         "127.0.0.1 localhost\n::1 localhost\n",
		"nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n",
		"resolv.conf":   resolver,
		"machine-id":    "",
	}
}

// makeEtc fills the root's /etc from the host's.
func makeEtc(top *os.Root, hostEtc string, gateway netip.Addr) error {
	for _, pattern := range etcCopies {
		found, _ := filepath.Glob(filepath.Join(hostEtc, pattern)) // the patterns are well formed
		for _, path := range found {
			rel, err := filepath.Rel(hostEtc, path)
			if err != nil {
				return err
			}
			if err := copyPublic(top, path, filepath.Join("etc", rel)); err != nil {
				return fmt.Errorf("copy %s: %w", path, err)
			}
		}
	}
	for name, text := range etcFiles(gateway) {
		name = "etc/" + name
		if err := top.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := top.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// etcFileMax keeps surprises out of the root, which is memory.
const etcFileMax = 4 << 20

// copyPublic copies a tree, as far as everyone may read it on the host.
func copyPublic(top *os.Root, from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		name := filepath.Join(to, strings.TrimPrefix(path, from))
		info, err := entry.Info()
		if err != nil {
			return nil // gone since it was listed
		}
		if err := top.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		switch mode := info.Mode(); {
		case mode.IsDir():
			if mode.Perm()&0o005 != 0o005 {
				return filepath.SkipDir
			}
			return top.MkdirAll(name, 0o755)
		case mode&fs.ModeSymlink != 0:
			link, err := os.Readlink(path)
			if err != nil {
				return nil
			}
			if err := top.Symlink(link, name); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		case mode.IsRegular() && mode.Perm()&0o004 != 0 && info.Size() <= etcFileMax:
			content, err := os.ReadFile(path)
			if err != nil {
				return nil
			}
			return top.WriteFile(name, content, mode.Perm()&0o755)
		}
		return nil
	})
}
