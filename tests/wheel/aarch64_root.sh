#!/usr/bin/env bash
# A Python for aarch64 that runs here, under qemu's emulation of one program: Debian's packages of it, with what they
# need and its headers, unpacked into FOLDER and not installed. Leaves FOLDER/python, which is called as any Python; a
# program that it starts itself does not run. Needs apt-get with Debian's sources, and qemu-aarch64. Argument: FOLDER.
set -euo pipefail
folder=$(mkdir -p "$1" && cd "$1" && pwd)
qemu=$(command -v qemu-aarch64 || command -v qemu-aarch64-static)
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT

# Lists and state of their own, in which nothing is installed: this machine's stay as they are.
mkdir -p "$work"/{state/lists,cache/archives}/partial
touch "$work/status"
apt=(-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Install-Recommends=false -o APT::Sandbox::User=
  -o "Dir::State=$work/state" -o "Dir::State::status=$work/status" -o "Dir::Cache=$work/cache")
apt-get -qq "${apt[@]}" update
apt-get -qq "${apt[@]}" --yes --download-only install python3 libpython3-dev libstdc++6
for package in "$work"/cache/archives/*.deb; do
  dpkg -x "$package" "$folder"
done

# What PyTorch asks Linux about its processor; without these it reads those of this machine, and dies of them.
cpu=$folder/sys/devices/system/cpu
mkdir -p "$folder/proc" "$cpu/cpu0/regs/identification"
echo 0 | tee "$cpu/possible" >"$cpu/present"
echo 0x00000000413fd0c1 >"$cpu/cpu0/regs/identification/midr_el1"
printf '%s\t: %s\n' processor 0 Features "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm \
lrcpc dcpop asimddp ssbs" "CPU implementer" 0x41 "CPU architecture" 8 "CPU variant" 0x3 "CPU part" 0xd0c "CPU revision" 1 \
  >"$folder/proc/cpuinfo"

cat >"$folder/python" <<END
#!/bin/sh
exec "$qemu" -cpu neoverse-n1 -L "$folder" "$folder/usr/bin/python3" "\$@"
END
chmod +x "$folder/python"
"$folder/python" -c 'import platform; print("Python", platform.python_version(), "for", platform.machine())'
