#!/bin/sh
# Runs tests of this crate on a processor that this machine lacks, in the emulator Bochs: boots a Linux kernel with
# nothing but the test binary. Some 50 to 300 times slower than the machine itself, so name the tests.
#
#   KERNEL=/boot/vmlinuz BUSYBOX=/bin/busybox sh bochs.sh TEST_BINARY WORK_FOLDER [FILTER...]
#
# TEST_BINARY is what `cargo test --release -p infomax-kernels --lib --no-run` names. BUSYBOX is a static one
# (busybox-static of Debian), KERNEL any x86-64 one with a serial console. Needs bochs, xorriso,
# isolinux with syslinux-common, and cpio. CPU and FEATURES may name another processor.
set -eu
: "${CPU:=corei7_skylake_x}" "${FEATURES:=}" "${BOCHS:=bochs}" "${LIMIT:=3600}"
: "${ISOLINUX:=/usr/lib/ISOLINUX/isolinux.bin}" "${LDLINUX:=/usr/lib/syslinux/modules/bios/ldlinux.c32}"
binary=$1
work=$(mkdir -p "$2" && cd "$2" && pwd)
shift 2

rm -rf "$work/root" "$work/iso"
mkdir -p "$work/root/bin" "$work/root/lib64" "$work/root/lib" "$work/root/proc" "$work/root/dev" "$work/root/tmp" \
    "$work/iso/isolinux"
cp "$BUSYBOX" "$work/root/bin/busybox"
cp "$binary" "$work/root/bin/tests"
strip -g "$work/root/bin/tests"
for library in $(ldd "$binary" | grep -oE '/[^ ]+'); do cp -L "$library" "$work/root/lib/"; done
cp -L /lib64/ld-linux-x86-64.so.2 "$work/root/lib64/"
cat > "$work/root/init" <<INIT
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
exec > /dev/ttyS0 2>&1
export LD_LIBRARY_PATH=/lib RAYON_NUM_THREADS=1 PROPTEST_CASES=${PROPTEST_CASES:-2}
/bin/busybox grep -m1 'model name' /proc/cpuinfo
/bin/busybox grep -m1 flags /proc/cpuinfo
cd /tmp
/bin/tests --test-threads=1 $*
echo "finished with \$?"
/bin/busybox sleep 1000000
INIT
chmod +x "$work/root/init"
(cd "$work/root" && find . | cpio -o -H newc --quiet | gzip -1) > "$work/iso/initrd.gz"
cp "$KERNEL" "$work/iso/vmlinuz"
cp "$ISOLINUX" "$LDLINUX" "$work/iso/isolinux/"
cat > "$work/iso/isolinux/isolinux.cfg" <<BOOT
DEFAULT tests
LABEL tests
 KERNEL /vmlinuz
 APPEND initrd=/initrd.gz console=ttyS0,115200 quiet mitigations=off nokaslr nosmp nolapic noapic acpi=off panic=-1
BOOT
xorriso -as mkisofs -quiet -o "$work/boot.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot \
    -boot-load-size 4 -boot-info-table "$work/iso"
cat > "$work/bochsrc" <<RC
cpu: model=$CPU, count=1, ips=100000000, reset_on_triple_fault=0${FEATURES:+, add_features=$FEATURES}
memory: guest=1024, host=1024
romimage: file=${BIOS:-/usr/share/bochs/BIOS-bochs-latest}
vgaromimage: file=${VGABIOS:-/usr/share/bochs/VGABIOS-lgpl-latest}
boot: cdrom
ata0-master: type=cdrom, path=$work/boot.iso, status=inserted
com1: enabled=1, mode=file, dev=$work/serial.txt
display_library: rfb, options="timeout=0"
log: $work/bochs.log
error: action=ignore
info: action=ignore
RC
rm -f "$work/serial.txt"
# A build with the debugger waits for its first command.
echo c | $BOCHS -q -f "$work/bochsrc" > "$work/bochs.out" 2>&1 &
emulator=$!
trap 'kill $emulator 2> /dev/null' EXIT
waited=0
while ! grep -q 'finished with' "$work/serial.txt" 2> /dev/null; do
    if [ "$waited" -ge "$LIMIT" ] || ! kill -0 $emulator 2> /dev/null; then
        cat "$work/serial.txt"
        echo "the emulator ended, or took more than $LIMIT s (see $work/bochs.out and $work/bochs.log)" >&2
        exit 1
    fi
    sleep 5
    waited=$((waited + 5))
done
cat "$work/serial.txt"
grep -q 'finished with 0' "$work/serial.txt"
