#!/bin/sh
# Installs what the tests use and this machine lacks: Debian as root only. Elsewhere it says what
# is missing; the tests that need it are skipped and say so too.
set -eu
missing=
want() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
want python3 python3
want node nodejs
want gcc gcc
ls /usr/lib/jvm/*/bin/javac >/dev/null 2>&1 || want javac default-jdk-headless
want aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
want ip iproute2
want ruby ruby
want bundle bundler
ls /usr/include/ruby-*/ruby.h >/dev/null 2>&1 || missing="$missing ruby-dev"
want php php-cli
want composer composer
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
	echo "installing:$missing"
	apt-get update -qq >/dev/null 2>&1 || true
	# shellcheck disable=SC2086 # a list of words
	apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
	echo "not installed:$missing (tests that need them are skipped)"
fi
