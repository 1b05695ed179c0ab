#!/bin/sh
# Builds the C programs, spawner.c, wait.c and rewind.c, for each architecture, or with -check
# says whether the committed binaries are what the sources give.
#
#   ./build.sh          build bin/<program>-amd64 and bin/<program>-arm64
#   ./build.sh -check   compare; exit 1 on any difference
#
# The bytes depend on the compiler, so bin/COMPILER names the one that was used;
# with another one there is nothing to compare, and that is said.
set -eu
cd "$(dirname "$0")"
check=no
[ "${1:-}" = "-check" ] && check=yes
out=bin
if [ $check = yes ]; then
	out=$(mktemp -d)
	trap 'rm -rf "$out"' EXIT
fi
failed=0

# compile <compiler> <output> <source> <flags>...
compile() {
	cc=$1 to=$2 source=$3
	shift 3
	flags="-std=gnu11 -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fno-pie -no-pie -fno-asynchronous-unwind-tables -fno-tree-loop-distribute-patterns -static -nostdlib -Wl,--build-id=none -Wl,-z,noexecstack -s"
	# arm64 compilers do not know -fcf-protection
	# shellcheck disable=SC2086
	"$cc" $flags -fcf-protection=none "$@" -ffile-prefix-map="$PWD"=. -o "$to" "$source" 2>"$out/err" ||
		"$cc" $flags "$@" -ffile-prefix-map="$PWD"=. -o "$to" "$source"
	rm -f "$out/err"
}

for arch in amd64 arm64; do
	case $arch in
	amd64) cc=${CC_AMD64:-x86_64-linux-gnu-gcc} ;;
	arm64) cc=${CC_ARM64:-aarch64-linux-gnu-gcc} ;;
	esac
	if ! command -v "$cc" >/dev/null; then
		echo "skip $arch: no compiler $cc (Debian: apt install gcc-${cc%-gcc})" | sed s/x86_64/x86-64/
		continue
	fi
	version=$("$cc" -dumpfullversion)-$("$cc" -dumpmachine)
	if [ $check = yes ] && ! grep -qx "$arch $version" bin/COMPILER; then
		echo "skip $arch: committed binary was built by $(grep "^$arch " bin/COMPILER), here is $version"
		continue
	fi
	compile "$cc" "$out/spawner-$arch" spawner.c -Os -Wl,-n
	compile "$cc" "$out/wait-$arch" wait.c -Os -Wl,-n
	# It stays for long and handles strangers' memory: fast, and no page both written and run.
	compile "$cc" "$out/rewind-$arch" rewind.c -O2 -Wl,-z,max-page-size=4096
	for program in spawner wait rewind; do
		if [ $check = no ]; then
			echo "built bin/$program-$arch ($(wc -c <"bin/$program-$arch") bytes)"
		elif cmp -s "$out/$program-$arch" "bin/$program-$arch"; then
			echo "ok $program $arch"
		else
			echo "differs: bin/$program-$arch is not what $program.c gives; run $PWD/build.sh and commit"
			failed=1
		fi
	done
	if [ $check = no ]; then
		grep -v "^$arch " bin/COMPILER >bin/COMPILER.new 2>/dev/null || true
		echo "$arch $version" >>bin/COMPILER.new
		sort bin/COMPILER.new >bin/COMPILER && rm bin/COMPILER.new
	fi
done
exit $failed
