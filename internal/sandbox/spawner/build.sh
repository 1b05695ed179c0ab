#!/bin/sh
# Builds the spawner for each architecture from spawner.c, or with -check says
# whether the committed binaries are what the source gives.
#
#   ./build.sh          build bin/spawner-amd64 and bin/spawner-arm64
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
	"$cc" -std=gnu11 -Os -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fno-pie -no-pie \
		-fno-asynchronous-unwind-tables -fno-tree-loop-distribute-patterns -fcf-protection=none \
		-ffile-prefix-map="$PWD"=. -static -nostdlib -Wl,--build-id=none -Wl,-z,noexecstack -Wl,-n -s \
		-o "$out/spawner-$arch" spawner.c 2>"$out/err" || {
		# arm64 compilers do not know -fcf-protection
		"$cc" -std=gnu11 -Os -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fno-pie -no-pie \
			-fno-asynchronous-unwind-tables -fno-tree-loop-distribute-patterns \
			-ffile-prefix-map="$PWD"=. -static -nostdlib -Wl,--build-id=none -Wl,-z,noexecstack -Wl,-n -s \
			-o "$out/spawner-$arch" spawner.c
	}
	rm -f "$out/err"
	if [ $check = yes ]; then
		if cmp -s "$out/spawner-$arch" "bin/spawner-$arch"; then
			echo "ok $arch"
		else
			echo "differs: bin/spawner-$arch is not what spawner.c gives; run $PWD/build.sh and commit"
			failed=1
		fi
	else
		grep -v "^$arch " bin/COMPILER >bin/COMPILER.new 2>/dev/null || true
		echo "$arch $version" >>bin/COMPILER.new
		sort bin/COMPILER.new >bin/COMPILER && rm bin/COMPILER.new
		echo "built bin/spawner-$arch ($(wc -c <"bin/spawner-$arch") bytes)"
	fi
done
exit $failed
