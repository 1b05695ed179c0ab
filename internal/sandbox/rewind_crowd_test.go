package sandbox

import (
	"context"
	"errors"
	"testing"
)

// burner begins two hundred threads that never rest.
const burner = `
#define _GNU_SOURCE
#include <pthread.h>
#include <string.h>
#include <unistd.h>
static void *burn(void *p) { for (;;); }
static pthread_attr_t small;
int main(void) {
	char c; int n = 0; char line[256];
	pthread_attr_init(&small); pthread_attr_setstacksize(&small, 65536); pthread_attr_setdetachstate(&small, 1);
	for (;;) {
		if (read(3, &c, 1) != 1) return 0;
		if (c != '\n') { line[n++ & 255] = c; continue; }
		line[n & 255] = 0; n = 0;
		if (!strcmp(line, "hello")) { write(3, "hello\n", 6); continue; }
		for (int i = 0; i < 200; i++) { pthread_t t; pthread_create(&t, &small, burn, 0); }
		write(3, "done\n", 5);
	}
}
`

// A program with so many threads that to stop them would take long holds up nobody.
func TestRewindWaitsForNoCrowd(t *testing.T) {
	h := startHost(t)
	needRewind(t, h)
	dir := buildStatic(t, burner)
	s := startSubject(t, h, []string{"/code/main"}, func(s *Spec) {
		s.Mounts = []Mount{{Source: dir, Target: "/code"}}
		s.CPU, s.PIDs = 100, 512
	})
	s.arm(t)
	if _, err := s.try("burn"); err != nil {
		t.Fatal(err)
	}
	_, err := s.Rewind(context.Background())
	var changed *ChangedError
	if !errors.As(err, &changed) || changed.What != "it has started too many threads" {
		t.Errorf("got %v, want that it has too many threads, and not how long they took", err)
	}
}
