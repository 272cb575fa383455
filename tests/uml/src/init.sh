#!/bin/bash
# The first process of a guest. The kernel's command line gives JOB (the job directory on the host), UMLROOT (where the
# modules are) and MARK (the word before the exit status); they arrive in the environment.
#
# The root is the host's own, mounted read-only. Every fork costs about 30 ms here, so builtins do what they can.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LANG=C LC_ALL=C TERM=dumb
umask 022
exec </dev/null >/dev/tty1 2>&1
stty raw -echo <&1                      # what the script prints arrives byte for byte
echo "$MARK start"
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir -p /dev/shm /run/lock /run/out /run/host /mnt/gfs
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t hostfs -o "$JOB/out" none /run/out
mount -t hostfs -o ro,/ none /run/host
export OUT=/run/out HOST=/run/host

status=0
. "$HOST$JOB/variables.sh"
for module in $MODULES; do
    # The host's /tmp is hidden here: the project may lie in it.
    modprobe -d "$HOST$UMLROOT" "$module" || { echo "cannot load the kernel module $module"; status=125; }
done
cd /tmp
if [ $status = 0 ]; then
    bash "$HOST$JOB/script.sh"
    status=$?
fi
sync                                    # the window: hostfs writes back as any filesystem
printf '\n%s %d\n' "$MARK" "$status"
echo o >/proc/sysrq-trigger             # power off, without asking any other program
while :; do read -r -t 1 _ <>/dev/tty2; done
