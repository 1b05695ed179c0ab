package daemon

// imageProgram is what the images of the tests hold: all that a program of an image may be, by its
// first argument.
const imageProgram = `
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static char in[1 << 20], out[1 << 20], init[1 << 20], word[4096];

static void add(const char *format, const char *a, const char *b) { int n = strlen(out); snprintf(out + n, sizeof out - n, format, a, b); }

static void show(const char *file) {
	int fd = open(file, O_RDONLY), n = fd < 0 ? -1 : read(fd, word, sizeof word - 1);
	if (n < 0) { add("%s: %s\n", file, strerror(errno)); return; }
	word[n] = 0; close(fd);
	add("%s: %s\n", file, word);
}
static void list(const char *dir) {
	DIR *d = opendir(dir);
	if (!d) { add("%s: %s\n", dir, strerror(errno)); return; }
	add("%s:%s", dir, "");
	for (struct dirent *e; (e = readdir(d));) if (e->d_name[0] != '.') add(" %s%s", e->d_name, "");
	add("\n%s%s", "", ""); closedir(d);
}
static void tries(const char *file) {
	int fd = open(file, O_WRONLY | O_CREAT, 0644);
	add(fd < 0 ? "kept %s%s\n" : "wrote %s%s\n", file, "");
	if (fd >= 0) close(fd);
}
static void self(int argc, char **argv) {
	char dir[4096];
	snprintf(word, sizeof word, "%d", getuid() != 0); add("own=%s cwd=%s", word, getcwd(dir, sizeof dir));
	add(" A=%s B=%s", getenv("A") ? getenv("A") : "", getenv("B") ? getenv("B") : "");
	add(" PORT=%s args=%s", getenv("PORT") ? getenv("PORT") : "", "");
	for (int i = 1; i < argc; i++) add("%s%s", i > 1 ? "," : "", argv[i]);
	add("\n%s%s", "", "");
}

/* one reads a message with a body that a length says; it returns the body, and the head in in. */
static char *one(int fd) {
	int n = 0, r;
	char *body = 0;
	for (;;) {
		if (n == sizeof in - 1 || (r = read(fd, in + n, sizeof in - 1 - n)) <= 0) return 0;
		in[n += r] = 0;
		if (!body && (body = strstr(in, "\r\n\r\n"))) body += 4;
		char *l = strcasestr(in, "content-length:");
		if (body && n - (body - in) >= (l && l < body ? atoi(l + 15) : 0)) return body;
	}
}
static void reply(int fd, int status) {
	char head[256];
	int n = snprintf(head, sizeof head, "HTTP/1.1 %d X\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", status, strlen(out));
	if (write(fd, head, n) < 0 || write(fd, out, strlen(out)) < 0) {}
}
static int listens(int port) {
	int s = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(s, (void *)&a, sizeof a) || listen(s, 64)) { perror("bind"); exit(1); }
	return s;
}
static double now(void) { struct timeval t; gettimeofday(&t, 0); return t.tv_sec + t.tv_usec / 1e6; }

static void server(int argc, char **argv, int port) {
	double began = now();
	int action = !strcmp(argv[1], "action"), watchdog = !strcmp(argv[1], "watchdog"), ready = 0;
	int s = listens(port);
	for (;;) {
		int fd = accept(s, 0, 0), status = 200;
		char *body = one(fd);
		out[0] = 0;
		if (!body) { close(fd); continue; }
		char path[1024] = "", *q;
		sscanf(in, "%*s %1023s", path);
		if ((q = strchr(path, '?'))) *q++ = 0; else q = "";
		if (watchdog && !strcmp(path, "/_/health")) {
			ready = now() - began > 0.3;
			status = ready ? 200 : 503;
		} else if (watchdog && !ready) {
			status = 500;
			add("called before it was ready%s%s", "", "");
		} else if (action && !strcmp(path, "/init")) {
			status = init[0] ? 403 : strstr(body, "refuse me") ? 502 : 200;
			strcpy(init, body);
			add(status == 200 ? "{\"ok\":true}%s%s" : "{\"error\":\"no such code\"}%s%s", "", "");
		} else if (action && !strcmp(path, "/run")) {
			printf("a line of log\nXXX_THE_END_OF_A_WHISK_ACTIVATION_XXX\n"); fflush(stdout);
			fprintf(stderr, "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX\n");
			if (strstr(body, "\"fail\"")) add("{\"error\":\"it failed%s%s\"}", "", "");
			else if (strstr(body, "\"shape\"")) add("{\"statusCode\":201,\"headers\":{\"X-Own\":\"yes\"},\"body\":\"shaped\"}%s%s", "", "");
			else add("{\"run\":%s,\"init\":%s}", body, init);
		} else if (!strcmp(path, "/show")) show(q);
		else if (!strcmp(path, "/list")) list(q);
		else if (!strcmp(path, "/write")) tries(q);
		else { add("%s %s ", path, body); self(argc, argv); }
		reply(fd, status);
		close(fd);
	}
}

static int asks(const char *method, const char *path, const char *body) {
	int s = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in a = {.sin_family = AF_INET};
	char host[256], *port;
	snprintf(host, sizeof host, "%s", getenv("AWS_LAMBDA_RUNTIME_API"));
	port = strchr(host, ':'); *port++ = 0;
	a.sin_port = htons(atoi(port)); a.sin_addr.s_addr = inet_addr(host);
	if (connect(s, (void *)&a, sizeof a)) { perror("connect"); exit(1); }
	char head[2048];
	int n = snprintf(head, sizeof head, "%s /2018-06-01/runtime/%s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n", method, path, strlen(body));
	if (write(s, head, n) < 0 || write(s, body, strlen(body)) < 0) exit(1);
	return s;
}
static void client(void) {
	char id[256], path[512];
	if (getenv("B") && !strcmp(getenv("B"), "broken")) { one(asks("POST", "init/error", "{\"errorType\":\"Init\",\"errorMessage\":\"no handler\"}")); pause(); }
	for (;;) {
		int fd = asks("GET", "invocation/next", "");
		char *event = one(fd), *h;
		close(fd);
		if (!event || !(h = strcasestr(in, "lambda-runtime-aws-request-id:"))) exit(1);
		sscanf(h + 30, " %255[^\r]", id);
		out[0] = 0;
		int fails = strstr(event, "\"fail\"") != 0;
		if (fails) add("{\"errorType\":\"Kind\",\"errorMessage\":\"it failed%s%s\",\"stackTrace\":[\"here\"]}", "", "");
		else add("{\"got\":%s,\"handler\":\"%s\"}", event, getenv("_HANDLER") ? getenv("_HANDLER") : "");
		snprintf(path, sizeof path, "invocation/%s/%s", id, fails ? "error" : "response");
		char *copy = strdup(out);
		fd = asks("POST", path, copy);
		one(fd); close(fd); free(copy);
	}
}

int main(int argc, char **argv) {
	const char *mode = argc > 1 ? argv[1] : "";
	int port = getenv("PORT") ? atoi(getenv("PORT")) : 8080;
	if (!strcmp(mode, "serve") || !strcmp(mode, "action")) server(argc, argv, port);
	if (!strcmp(mode, "watchdog")) server(argc, argv, 8080);
	if (!strcmp(mode, "fixed")) server(argc, argv, 80);
	if (!strcmp(mode, "events")) client();
	if (!strcmp(mode, "deaf")) for (;;) pause();
	if (!strcmp(mode, "proud") && (setgid(33) || setuid(33))) { perror("cannot become www-data: setgid"); return 1; }
	if (!strcmp(mode, "lines")) {
		char line[4096], id[256];
		while (fgets(line, sizeof line, stdin)) {
			char *p = strstr(line, "\"id\":\"");
			if (p && sscanf(p + 6, "%255[^\"]", id) == 1) dprintf(3, "{\"id\":\"%s\",\"result\":\"own=%d\"}\n", id, getuid() != 0);
		}
		return 0;
	}
	if (!strcmp(mode, "exec")) {
		int n = read(0, in, sizeof in - 1);
		in[n < 0 ? 0 : n] = 0;
		self(argc, argv); add("input=%s%s\n", in, "");
		if (argc > 2) { show(argv[2]); list("/"); }
		fputs(out, stdout);
		return 0;
	}
	fprintf(stderr, "no such mode\n");
	return 1;
}
`
