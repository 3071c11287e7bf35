#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# The first process of the guest, from the initramfs. It puts a writable layer over the host's root,
# which comes read-only over 9p, and goes there. All mounts are made by busybox from memory: programs
# of the root cost a tenth of a second each over 9p.
b=/bin/busybox
export PATH=/bin
die() { echo "vm: $*"; $b poweroff -f; }
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
for m in /mod/*; do $b insmod "$m" || die "cannot load $m"; done
share() { # tag directory ro|rw cache
  $b mount -t 9p -o "$3,trans=virtio,version=9p2000.L,msize=512000,cache=$4" "$1" "$2" ||
    die "cannot mount $1"
}
share root /lower ro loose
$b mount -t tmpfs -o size=75% rw /rw || die "cannot make the writable layer"
$b mkdir /rw/up /rw/work
n=/newroot
$b mount -t overlay -o lowerdir=/lower,upperdir=/rw/up,workdir=/rw/work root $n ||
  die "cannot lay it over the root"
for d in proc sys dev run tmp lib/modules usr/local/sbin; do $b mkdir -p $n/$d; done
share mods $n/lib/modules ro loose
# Not over /tmp: what is to be run may lie there, and what is written there stays here all the same.
$b mount -t tmpfs -o mode=755 run $n/run
$b mkdir -p $n/run/vm $n/run/lock $n/run/netns $n/run/guest
share vm $n/run/vm rw none
$b mkdir -p /dev/pts /dev/shm
$b mount -t devpts devpts /dev/pts
$b mount -t tmpfs shm /dev/shm
$b ln -sf /proc/self/fd /dev/fd
$b ln -sf fd/0 /dev/stdin
$b ln -sf fd/1 /dev/stdout
$b ln -sf fd/2 /dev/stderr
$b mount -t cgroup2 cgroup /sys/fs/cgroup
$b mount -t bpf bpf /sys/fs/bpf
$b mount -t tracefs tracing /sys/kernel/tracing
$b mount -t debugfs debug /sys/kernel/debug
$b hostname vm
$b ifconfig lo up
# The kernel asks for modules by this program, and so do tests.
$b cp /modprobe $n/usr/local/sbin/modprobe
echo /usr/local/sbin/modprobe > /proc/sys/kernel/modprobe
$b cp $b $n/run/guest/busybox
$b cp /run.sh $n/run/guest/run.sh
$b mount --move /dev $n/dev
$b mount --move /proc $n/proc
$b mount --move /sys $n/sys
exec $b switch_root $n /run/guest/busybox sh /run/guest/run.sh
