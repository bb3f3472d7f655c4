#!/bin/sh
# under_qemu.sh PROGRAM SYSROOT: moves the program aside and puts a script in its place that runs it under qemu-user.
# -R keeps its mappings within 16 GiB of addresses: qemu 7.2 never frees what it keeps for each page that was ever mapped,
# and with new addresses for each shard that a test opens it took all memory of the host.
set -eu
mv "$1" "$1.aarch64"
cat >"$1" <<SCRIPT
#!/bin/sh
exec qemu-aarch64-static -R 0x400000000 -L '$2' -0 "\$0" "\$0.aarch64" "\$@"
SCRIPT
chmod +x "$1"
