#!/bin/sh
# Builds bootstrap.jar from src, or with -check says whether the committed one is what the source
# gives.
#
#   ./build.sh          build bootstrap.jar
#   ./build.sh -check   compare; exit 1 on a difference
#
# The class files depend on the compiler, so COMPILER names the one that was used; with another one
# there is nothing to compare, and that is said. Times in the jar are fixed, its entries sorted and
# stored without compression: reading them needs no inflater, and the page cache shares them.
set -eu
cd "$(dirname "$0")"
check=no
[ "${1:-}" = "-check" ] && check=yes
java=
for home in "${JAVA_HOME:-}" /usr/lib/jvm/*; do
	[ -n "$home" ] && [ -x "$home/bin/javac" ] && [ -x "$home/bin/jar" ] || continue
	version=$("$home/bin/javac" -version 2>&1)
	if [ -f COMPILER ] && [ "$version" = "$(cat COMPILER)" ]; then
		java=$home
		break
	fi
	java=${java:-$home}
done
if [ -z "$java" ]; then
	echo "skip bootstrap.jar: no javac in JAVA_HOME or /usr/lib/jvm (Debian: apt install default-jdk-headless)"
	exit 0
fi
version=$("$java/bin/javac" -version 2>&1)
if [ $check = yes ] && [ "$version" != "$(cat COMPILER)" ]; then
	echo "skip bootstrap.jar: it was built by $(cat COMPILER), here is $version"
	exit 0
fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/classes" "$tmp/classes/sample"
# Strings are put together by StringBuilder: the way by invokedynamic costs the first of each form
# a part of a millisecond.
"$java/bin/javac" --release 17 -Xlint:all,-serial -Werror -g:source,lines -XDstringConcat=inline -encoding UTF-8 -d "$tmp/classes" src/brasa/*.java
"$java/bin/javac" --release 17 -Xlint:all -Werror -g:source,lines -encoding UTF-8 -cp "$tmp/classes" -d "$tmp/classes/sample" src/sample/*.java
cat >"$tmp/manifest" <<END
Main-Class: brasa.Main
Add-Opens: java.base/java.io java.base/java.lang java.base/java.util java.base/java.util.concurrent
END
(cd "$tmp/classes" && find . -type f | sed 's|^\./||' | LC_ALL=C sort) >"$tmp/files"
out=$tmp/bootstrap.jar
(cd "$tmp/classes" && TZ=UTC "$java/bin/jar" --create --no-compress --date=2020-01-01T00:00:00Z --file "$out" --manifest "$tmp/manifest" @"$tmp/files")
if [ $check = yes ]; then
	if cmp -s "$out" bootstrap.jar; then
		echo "ok bootstrap.jar"
	else
		echo "differs: bootstrap.jar is not what src gives; run $PWD/build.sh and commit"
		exit 1
	fi
else
	echo "$version" >COMPILER
	cp "$out" bootstrap.jar
	chmod 644 bootstrap.jar
	echo "built bootstrap.jar ($(wc -c <bootstrap.jar) bytes) by $version"
fi
