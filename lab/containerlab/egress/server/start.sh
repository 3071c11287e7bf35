#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Port 7 says back what it hears, by TCP and UDP; port 9 hears and is silent, by UDP; port 80 tells who
# asks. Each prints a line with the protocol and the client's address: the log of this node.
for family in 4 6; do
  socat "TCP$family-LISTEN:7,fork,reuseaddr" "SYSTEM:sh /etc/server/answer.sh tcp" &
  socat "TCP$family-LISTEN:80,fork,reuseaddr" "SYSTEM:sh /etc/server/answer.sh http" &
  socat "UDP$family-RECVFROM:7,fork" "SYSTEM:sh /etc/server/answer.sh udp" &
  socat -u "UDP$family-RECV:9" OPEN:/dev/null &
done
wait
