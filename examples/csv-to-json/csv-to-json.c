/* Turns CSV on standard input into JSON on standard output: an array of objects named by the
 * header, or with FORMAT=lines one object per line. It holds one row at a time.
 *
 * Build: cc -O2 -static -o csv-to-json csv-to-json.c */

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_COLUMNS = 1024, MAX_ROW = 8 << 20 };

struct row {
	char *text;        /* the fields, one after the other, each with a NUL at its end */
	size_t used, room;
	size_t start[MAX_COLUMNS];
	size_t length[MAX_COLUMNS];
	bool quoted[MAX_COLUMNS];
	int count;
};

static _Noreturn void fail(const char *why, unsigned long line)
{
	fprintf(stderr, "line %lu: %s\n", line, why);
	exit(1);
}

static void put(struct row *r, int c, unsigned long line)
{
	if (r->used == r->room) {
		if (r->room >= MAX_ROW)
			fail("the row is longer than 8 MiB; is a quote missing?", line);
		r->room = r->room ? 2 * r->room : 4096;
		r->text = realloc(r->text, r->room);
		if (r->text == NULL)
			fail("out of memory", line);
	}
	r->text[r->used++] = (char)c;
}

/* read_row reads one row; false at the end of the input. */
static bool read_row(struct row *r, int delimiter, unsigned long *line)
{
	int c = getchar_unlocked();

	while (c == '\n' || c == '\r') { /* empty lines are no rows */
		*line += c == '\n';
		c = getchar_unlocked();
	}
	if (c == EOF)
		return false;
	r->used = 0;
	r->count = 0;
	for (;;) {
		if (r->count == MAX_COLUMNS)
			fail("more than 1024 columns", *line);
		r->start[r->count] = r->used;
		r->quoted[r->count] = c == '"';
		if (c == '"') {
			for (;;) {
				c = getchar_unlocked();
				if (c == EOF)
					fail("the input ends inside quotes", *line);
				if (c == '\n')
					++*line;
				if (c == '"' && (c = getchar_unlocked()) != '"')
					break;
				put(r, c, *line);
			}
		}
		while (c != delimiter && c != '\n' && c != EOF) {
			if (c != '\r')
				put(r, c, *line);
			c = getchar_unlocked();
		}
		r->length[r->count] = r->used - r->start[r->count];
		put(r, '\0', *line);
		r->count++;
		if (c != delimiter) {
			*line += c == '\n';
			return true;
		}
		c = getchar_unlocked();
	}
}

/* sequence returns the length of the UTF-8 sequence at s, 0 if there is none (RFC 3629). */
static size_t sequence(const unsigned char *s, size_t left)
{
	size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;

	if (n == 0 || n > left)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
	    (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return n;
}

static void print_string(const char *text, size_t length)
{
	const unsigned char *s = (const unsigned char *)text;

	putchar_unlocked('"');
	for (size_t i = 0; i < length;) {
		size_t n = sequence(s + i, length - i);

		if (n == 0) {
			fputs("\xef\xbf\xbd", stdout); /* what is not UTF-8 */
			i++;
		} else if (s[i] == '"' || s[i] == '\\') {
			putchar_unlocked('\\');
			putchar_unlocked(s[i++]);
		} else if (s[i] < 0x20 || s[i] == 0x7f) {
			printf("\\u%04x", s[i++]);
		} else {
			while (n-- > 0)
				putchar_unlocked(s[i++]);
		}
	}
	putchar_unlocked('"');
}

/* is_number says whether a text is a number as JSON writes it. */
static bool is_number(const char *s)
{
	const char *digits;

	s += *s == '-';
	if (*s == '0' ? s[1] >= '0' && s[1] <= '9' : !(*s >= '1' && *s <= '9'))
		return false;
	s += strspn(s, "0123456789");
	if (*s == '.') {
		digits = ++s;
		s += strspn(s, "0123456789");
		if (s == digits)
			return false;
	}
	if (*s == 'e' || *s == 'E') {
		s++;
		s += *s == '+' || *s == '-';
		digits = s;
		s += strspn(s, "0123456789");
		if (s == digits)
			return false;
	}
	return *s == '\0';
}

static void print_value(const struct row *r, int i)
{
	const char *s = r->text + r->start[i];
	size_t n = r->length[i];

	if (!r->quoted[i] && n == 0)
		fputs("null", stdout);
	else if (!r->quoted[i] && (strcmp(s, "true") == 0 || strcmp(s, "false") == 0))
		fputs(s, stdout);
	else if (!r->quoted[i] && n < 300 && strlen(s) == n && is_number(s))
		fputs(s, stdout);
	else
		print_string(s, n);
}

int main(void)
{
	static struct row head, row;
	static char buffer[64 << 10];
	const char *format = getenv("FORMAT"), *mark = getenv("DELIMITER");
	bool lines = format != NULL && strcmp(format, "lines") == 0;
	int delimiter = mark != NULL && *mark != '\0' ? *mark : ',';
	unsigned long line = 1, rows = 0;

	setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
	if (!read_row(&head, delimiter, &line))
		fail("the input is empty; the first line must name the columns", line);
	if (head.length[0] >= 3 && memcmp(head.text, "\xef\xbb\xbf", 3) == 0) {
		head.start[0] += 3; /* a byte order mark */
		head.length[0] -= 3;
	}
	if (!lines)
		putchar_unlocked('[');
	while (read_row(&row, delimiter, &line)) {
		if (row.count > head.count)
			fail("the row has more fields than the header", line - 1);
		if (!lines)
			fputs(rows > 0 ? ",\n" : "\n", stdout);
		rows++;
		putchar_unlocked('{');
		for (int i = 0; i < head.count; i++) {
			if (i > 0)
				putchar_unlocked(',');
			print_string(head.text + head.start[i], head.length[i]);
			putchar_unlocked(':');
			if (i < row.count)
				print_value(&row, i);
			else
				fputs("null", stdout);
		}
		fputs(lines ? "}\n" : "}", stdout);
	}
	if (!lines)
		fputs(rows > 0 ? "\n]\n" : "]\n", stdout);
	if (ferror(stdin) || fflush(stdout) != 0) {
		fprintf(stderr, "%s\n", strerror(errno));
		return 1;
	}
	return 0;
}
