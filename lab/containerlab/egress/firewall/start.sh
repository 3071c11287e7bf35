#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Loads the rules and prints every refused packet, a line for each: the log of this node.
set -e
nft -f /etc/firewall/rules.nft
exec tcpdump -n -l -i nflog:1
