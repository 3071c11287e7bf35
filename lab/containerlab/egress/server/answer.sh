#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Answers one client of start.sh, and says who it was.
echo "$1 $SOCAT_PEERADDR" >&2
case "$1" in
  http)
    # The request, up to the empty line.
    while read -r line && [ "${#line}" -gt 1 ]; do :; done
    printf 'HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nyou are %s\n' "$SOCAT_PEERADDR"
    ;;
  *) exec cat ;;
esac
