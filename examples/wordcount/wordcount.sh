#!/bin/sh
# Counts the lines, words and characters of the text on standard input, and its ten commonest
# words; prints JSON. One process per call: what it prints is the answer.
set -eu
export LC_ALL=C.UTF-8

text=$(mktemp)
trap 'rm -f "$text"' EXIT
cat >"$text"

# shellcheck disable=SC2046 # four numbers
set -- $(wc -lwmc <"$text")
printf '{"lines":%d,"words":%d,"characters":%d,"bytes":%d,"top":[' "$1" "$2" "$3" "$4"

# A word is letters and digits, with ' between them; it can't hold what JSON would have to escape.
comma=
{ grep -oE "[[:alnum:]]+('[[:alnum:]]+)*" "$text" || true; } |
	sed 's/.*/\L&/' | sort | uniq -c | sort -k1,1nr -k2,2 | head -n 10 |
	while read -r count word; do
		printf '%s{"word":"%s","count":%d}' "$comma" "$word" "$count"
		comma=,
	done

echo ']}'
