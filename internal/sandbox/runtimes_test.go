package sandbox

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What people run must run: each does a little of what its runtime does at start and under load.
func TestLanguagesRun(t *testing.T) {
	goroot, _ := exec.Command("go", "env", "GOROOT").Output()
	root := strings.TrimSpace(string(goroot))
	h := startHost(t, func(c *Config) {
		if root != "" {
			c.RootDirs = []string{root}
		}
	})
	env := []string{"PATH=/usr/local/bin:/usr/bin:/bin:" + root + "/bin", "HOME=/tmp", "GOCACHE=/tmp/go-cache", "GOPATH=/tmp/go", "GOTOOLCHAIN=local", "GOFLAGS=-mod=mod", "CGO_ENABLED=0"}
	for _, l := range []struct{ program, name, script, want string }{
		{"/usr/bin/python3", "python", `python3 -I -c '
import threading, subprocess, multiprocessing, asyncio, ssl, tempfile, socket, hashlib, getpass, os, pwd
out = []
t = threading.Thread(target=lambda: out.append("thread")); t.start(); t.join()
out.append(subprocess.check_output(["echo", "child"], text=True).strip())
async def a(): await asyncio.sleep(0); return "async"
out.append(asyncio.run(a()))
with multiprocessing.get_context("fork").Pool(2) as p: out.append(str(sum(p.map(abs, [1, -2]))))
ssl.create_default_context(); tempfile.NamedTemporaryFile().close()
out.append(pwd.getpwuid(os.getuid()).pw_name); out.append(socket.gethostbyname(socket.gethostname()))
print(" ".join(out))'`, "thread child async 3 function 127.0.1.1"},
		{"/usr/bin/node", "node", `node -e '
const {Worker} = require("worker_threads"), crypto = require("crypto"), os = require("os"), fs = require("fs"), cp = require("child_process");
new Worker("require(\"worker_threads\").parentPort.postMessage(1)", {eval: true}).on("message", async m => {
  crypto.pbkdf2Sync("a", "b", 10, 16, "sha256");
  await fs.promises.writeFile("/tmp/x", "file");
  console.log(os.userInfo().username, os.cpus().length > 0, os.totalmem() > 0, cp.execSync("echo child").toString().trim(), fs.readFileSync("/tmp/x", "utf8"), Object.keys(os.networkInterfaces()).join());
});'`, "function true true child file lo"},
		{"/usr/bin/java", "java", `cat >/tmp/A.java <<'E'
public class A { public static void main(String[] a) throws Exception {
  Thread t = new Thread(() -> System.out.print("thread ")); t.start(); t.join();
  Process p = new ProcessBuilder("echo", "child").start();
  System.out.print(new String(p.getInputStream().readAllBytes()).trim() + " ");
  System.out.print(java.net.InetAddress.getLocalHost().getHostAddress() + " ");
  System.out.println(System.getProperty("user.name"));
} }
E
java -Xmx200m -XX:TieredStopAtLevel=1 /tmp/A.java`, "thread child 127.0.1.1 function"},
		{"/bin/bash", "bash", `bash -c 'a=(1 2 3); cat <(echo "${a[2]}") | sed s/3/three/; exec 5<>/tmp/x; echo ok >&5; cat /tmp/x; mkfifo /tmp/p; (echo pipe >/tmp/p &); cat /tmp/p'`, "three\nok\npipe"},
		{"/usr/bin/gcc", "gcc", `echo 'int puts(const char*); int main(void){puts("built");return 0;}' >/tmp/a.c && gcc -O1 -o /tmp/a /tmp/a.c && /tmp/a`, "built"},
		{root + "/bin/go", "go build", `mkdir /tmp/m && cd /tmp/m && printf 'module m\ngo 1.20\n' >go.mod && printf 'package main\nimport ("fmt";"os/exec";"time")\nfunc main(){c:=make(chan int);go func(){time.Sleep(1);c<-1}();<-c;o,_:=exec.Command("echo","child").Output();fmt.Print("built ",string(o))}\n' >main.go && go build -o a . && ./a`, "built child"},
	} {
		t.Run(l.name, func(t *testing.T) {
			if _, err := os.Stat(l.program); err != nil || !strings.HasPrefix(resolved(l.program), "/usr/") && !strings.HasPrefix(l.program, root) {
				t.Skipf("needs %s", l.program)
			}
			o := run(t, h, Spec{Args: []string{"/bin/sh", "-c", l.script}, Env: env, Memory: 2 << 30, Tmp: 1 << 30, PIDs: 512})
			if got := strings.TrimSpace(o.stdout); got != l.want || o.exit.Code != 0 {
				t.Errorf("%v: got %q, want %q; stderr %q", o.exit, got, l.want, o.stderr)
			}
		})
	}
}

func resolved(path string) string {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return path
	}
	return real
}
