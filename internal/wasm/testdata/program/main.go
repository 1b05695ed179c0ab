// Command program is a function for the tests of package wasm: its first line of input says what it
// does.
package main

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"time"
)

var before int // what a call leaves behind, were it seen by the next

func main() {
	in := bufio.NewReader(os.Stdin)
	line, _ := in.ReadString('\n')
	what, arg, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	switch what {
	case "cat":
		_, _ = io.Copy(os.Stdout, in)
	case "upper":
		b, _ := io.ReadAll(in)
		fmt.Print(strings.ToUpper(string(b)))
	case "env":
		for _, v := range os.Environ() {
			fmt.Println(v)
		}
	case "args":
		fmt.Printf("%q", os.Args)
	case "log":
		fmt.Fprint(os.Stderr, "first\nlast")
		fmt.Print("out\n")
	case "exit":
		fmt.Fprintln(os.Stderr, "broken pipe to nowhere")
		os.Exit(3)
	case "panic":
		panic("over the edge")
	case "count":
		before++
		fmt.Print(before)
	case "random":
		var b [32]byte
		_, _ = rand.Read(b[:])
		fmt.Print(hex.EncodeToString(b[:]))
	case "sleep":
		d, _ := time.ParseDuration(arg)
		began := time.Now()
		time.Sleep(d)
		fmt.Print(time.Since(began) >= d)
	case "now":
		fmt.Print(time.Now().UnixMilli())
	case "spin":
		for {
		}
	case "files":
		for _, name := range []string{"/", ".", "/etc/passwd", "/code/fn.wasm", "/proc/self/environ", "/tmp"} {
			if _, err := os.ReadDir(name); err == nil {
				fmt.Println("listed", name)
			}
			if _, err := os.ReadFile(name); err == nil {
				fmt.Println("read", name)
			}
		}
		if err := os.WriteFile("/tmp/x", []byte("x"), 0o600); err == nil {
			fmt.Println("wrote /tmp/x")
		}
		if _, err := net.Dial("tcp", "127.0.0.1:80"); err == nil {
			fmt.Println("dialed")
		}
		fmt.Print("done")
	case "eat":
		var all [][]byte
		for {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = 1
			}
			all = append(all, b)
			runtime.KeepAlive(all)
		}
	case "yes":
		for {
			if _, err := os.Stdout.WriteString(strings.Repeat("y\n", 4096)); err != nil {
				return
			}
		}
	default:
		fmt.Printf("what is %q?", what)
	}
}
