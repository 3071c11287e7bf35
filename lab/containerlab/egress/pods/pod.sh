#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A container runtime in a few lines:
#
#   pod add NAMESPACE NAME      makes a pod by the CNI plugin
#   pod exec NAME COMMAND...    runs a command in it
#   pod delete NAMESPACE NAME   takes it away again
set -e
call() {
  echo '{"cniVersion":"1.1.0","name":"causeway","type":"causeway-cni"}' | env \
    CNI_COMMAND="$1" CNI_CONTAINERID="$3" CNI_NETNS="/var/run/netns/$3" CNI_IFNAME=eth0 \
    CNI_ARGS="K8S_POD_NAMESPACE=$2;K8S_POD_NAME=$3" /opt/cni/bin/causeway-cni
}
case "$1" in
  add) ip netns add "$3" && call ADD "$2" "$3" && ip -n "$3" -brief address show eth0 ;;
  exec) name=$2 && shift 2 && exec ip netns exec "$name" "$@" ;;
  delete) call DEL "$2" "$3" && ip netns delete "$3" ;;
  *) echo "pod add|exec|delete, see $0" >&2 && exit 2 ;;
esac
