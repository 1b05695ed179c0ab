#!/bin/sh
# Builds the addon native.c for each architecture, or with -check says whether the committed files
# are what the source gives.
#
#   ./build.sh          build bin/amd64.node and bin/arm64.node
#   ./build.sh -check   compare; exit 1 on any difference
#
# The bytes depend on the compiler, so bin/COMPILER names the one that was used; with another one
# there is nothing to compare, and that is said.
set -eu
cd "$(dirname "$0")"
out=bin
if [ "${1:-}" = "-check" ]; then
	out=$(mktemp -d)
	trap 'rm -rf "$out"' EXIT
fi
mkdir -p bin
failed=0
for arch in amd64 arm64; do
	case $arch in
	amd64) cc=${CC_AMD64:-x86_64-linux-gnu-gcc} ;;
	arm64) cc=${CC_ARM64:-aarch64-linux-gnu-gcc} ;;
	esac
	if ! command -v "$cc" >/dev/null; then
		echo "skip $arch: no compiler $cc"
		continue
	fi
	version=$("$cc" -dumpfullversion)-$("$cc" -dumpmachine)
	if [ "$out" != bin ] && ! grep -qx "$arch $version" bin/COMPILER; then
		echo "skip $arch: the committed file was built by $(grep "^$arch " bin/COMPILER), here is $version"
		continue
	fi
	"$cc" -std=gnu11 -Os -Wall -Wextra -Werror -DSYS_LIBRARY -ffreestanding -fno-tree-loop-distribute-patterns -fPIC -shared -nostdlib -fvisibility=hidden -fno-stack-protector \
		-fno-asynchronous-unwind-tables -Wl,--build-id=none -Wl,-z,noexecstack -Wl,-z,relro,-z,now -s \
		-ffile-prefix-map="$PWD"=. -o "$out/$arch.node" native.c
	if [ "$out" = bin ]; then
		grep -v "^$arch " bin/COMPILER >bin/COMPILER.new 2>/dev/null || true
		echo "$arch $version" >>bin/COMPILER.new
		sort bin/COMPILER.new >bin/COMPILER && rm bin/COMPILER.new
		echo "built bin/$arch.node ($(wc -c <"bin/$arch.node") bytes)"
	elif cmp -s "$out/$arch.node" "bin/$arch.node"; then
		echo "ok $arch"
	else
		echo "differs: bin/$arch.node is not what native.c gives; run $PWD/build.sh and commit"
		failed=1
	fi
done
exit $failed
