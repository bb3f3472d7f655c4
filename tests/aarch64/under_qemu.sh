#!/bin/sh
# under_qemu.sh PROGRAM SYSROOT: moves the program aside and puts a script in its place that runs it under qemu-user.
set -eu
mv "$1" "$1.aarch64"
cat >"$1" <<SCRIPT
#!/bin/sh
exec qemu-aarch64-static -L '$2' -0 "\$0" "\$0.aarch64" "\$@"
SCRIPT
chmod +x "$1"
