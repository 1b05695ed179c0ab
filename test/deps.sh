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
# Brokers and databases, which the tests start by themselves.
servers=
want_server() { command -v "$1" >/dev/null 2>&1 || { missing="$missing $2" servers="$servers $2"; }; }
want_server redis-server redis-server
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || want_server initdb postgresql
want_server /usr/sbin/mosquitto mosquitto
want_server /usr/sbin/rabbitmq-server rabbitmq-server
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
	echo "installing:$missing"
	apt-get update -qq >/dev/null 2>&1 || true
	# Nobody asked for services: none is started now, nor when the machine starts.
	policy=/usr/sbin/policy-rc.d
	if [ ! -e "$policy" ]; then
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod +x "$policy"
		trap 'rm -f "$policy"' EXIT
	fi
	# shellcheck disable=SC2086 # a list of words
	apt-get install -y -qq --no-install-recommends $missing >/dev/null
	if command -v systemctl >/dev/null 2>&1; then
		for s in $servers; do systemctl disable -q "$s" >/dev/null 2>&1 || true; done
	fi
else
	echo "not installed:$missing (tests that need them are skipped)"
fi
