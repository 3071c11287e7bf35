#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Port 7 says back what it hears, by TCP and UDP; port 9 hears and is silent, by UDP; port 80 tells who
# asks. Each prints a line with the protocol and the client's address: the log of this node.
serve() {
  socat "TCP$1-LISTEN:7,fork,reuseaddr$2" "SYSTEM:sh /etc/server/answer.sh tcp" &
  socat "TCP$1-LISTEN:80,fork,reuseaddr$2" "SYSTEM:sh /etc/server/answer.sh http" &
  socat "UDP$1-RECVFROM:7,fork$2" "SYSTEM:sh /etc/server/answer.sh udp" &
  socat -u "UDP$1-RECV:9$2" OPEN:/dev/null &
}
serve 4 ""
# For IPv6 alone, so that addresses are printed as what they are.
serve 6 ",ipv6only"
wait
