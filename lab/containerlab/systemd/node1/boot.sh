#!/bin/sh
# Makes systemd PID 1 of namespaces and a control group of its own, and tidies up after it.
set -eu
mountpoint -q /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup
own=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
own=${own%/}
# Those of nodes that were killed; what somebody is in stays. The minute is for one just being made.
find "$own" -mindepth 1 -depth -type d -path "$own/causeway-lab.*" -mmin +1 \
  -exec rmdir {} + 2>/dev/null || true
group=$(mktemp -d "$own/causeway-lab.XXXXXX")
echo $$ >"$group/cgroup.procs"
printf '%032x\n' 1 >/etc/machine-id
cp /etc/lab/causeway.yaml /etc/causeway/causeway.yaml
# The units call the programs where a package puts them.
for program in causewayd causeway causeway-bfdd; do
  ln -sf "/usr/local/bin/$program" "/usr/bin/$program"
done
ended=0
unshare --mount --pid --fork --kill-child --cgroup /bin/sh -euc '
  # As systemd leaves it where it boots a machine: services see what is mounted later, such as the
  # namespaces of pods.
  mount --make-rshared /
  umount /sys/fs/cgroup
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  mount -t proc proc /proc
  export container=lab
  exec /lib/systemd/systemd --system --unit=lab.target
' || ended=$?
echo $$ >"$own/cgroup.procs"
find "$group" -depth -type d -exec rmdir {} +
exit "$ended"
