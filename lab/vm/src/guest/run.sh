# SPDX-License-Identifier: Apache-2.0
# The first process of the guest in its root: runs the command with the second serial port for its
# output, leaves the exit code on the share, and switches the machine off.
b=/run/guest/busybox
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 TERM=dumb
$b stty -F /dev/ttyS1 raw -echo
$b setsid /bin/sh /run/vm/command </dev/null >/dev/ttyS1 2>&1 &
wait $!
code=$?
echo $code > /run/vm/code.new
$b mv /run/vm/code.new /run/vm/code
$b sync
# Changing the port's settings waits until all is sent (TCSADRAIN).
$b stty -F /dev/ttyS1 raw -echo
$b poweroff -f
