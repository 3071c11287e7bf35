// SPDX-License-Identifier: Apache-2.0
//! What the page says beside its numbers.

pub(super) const INTRODUCTION: &str = "# The bench of egress gateways

`cargo xtask bench egress translation` wrote this page. Numbers are nanoseconds per 64-byte IPv4 UDP
packet of the whole path, from the first veth device until an XDP program has counted and dropped the
packet behind the last one, the making of the packet included. Only ratios within one table mean
something: other work of the machine is in all of them.

- Each way has a router of its own, a network namespace between a pod and the world, or two nodes with a
  link between them; all are alike. The ways take turns round by round, forwards and backwards, the first
  round does not count, and *best* is the least of the others.
- Packets come from XDP live frames (`BPF_PROG_TEST_RUN`), with static neighbours, on one core, before all
  other work. Of every turn at least 999 of 1000 packets must arrive with the right source (answers:
  destination) address, or the run fails.
- Addresses, ports and both checksums are real. Connection tracking does not check checksums
  (`nf_conntrack_checksum=0`), as behind a network card that does, and its UDP timeouts are an hour, so
  that no entry ends.
- Every way keeps the port a packet has, since it is free.
- Of many flows every 20 011th has its turn, not the next one: what was made in order would be found in
  order, and the processor's prefetching would hide what memory costs.
- Packets and connections per second are of that one core, by the best round; of *new flows* every packet
  is a connection of its own.

";

pub(super) const EXPLANATIONS: &str = "### What is in the numbers, and what is not

- **our gateway** is `egress_out` on the pod's device and `egress_back` on the fabric's, in place of the
  tunnel: a program of four instructions before it puts the number of the rule into the packet's mark, as
  `from_pod` does for pods of the gateway's own node. VXLAN is not in these numbers, nor reading its key
  (a helper call that finds none is in its place), nor, for new flows, looking up the pod's node.
  Forwarding is in them: the cached route and `bpf_redirect_neigh`. Answers go to a pod of the gateway's
  own node: `egress_back` translates and the kernel forwards, with `to_pod` and `from_fabric` not attached.
- **our forwarding** is `from_pod` and `from_fabric` without any translation. Translation's own share is
  what a way adds to forwarding; of our gateway both are given, what it adds to the kernel's and to ours.
- **the gateway alone behind VXLAN** is fed with packets in VXLAN, the same bytes for all, at its device
  towards the fabric. Ours has everything on that a gateway has: `egress_back` and `from_fabric` look at
  the packet in VXLAN, and the tunnel's device has `egress_out` and `from_fabric`.
- **VXLAN** of the kernel's ways is a device with one identifier and one other end, which is the cheapest
  there is. Our tunnel's device is told both with each packet (`external`), since the identifier is the
  rule: the kernel makes and frees a note of them for each packet, and asks its routing table for each
  packet it encapsulates. *By metadata* is plain forwarding with such devices, what Cilium's are too.
- **two nodes** have a pod's node in front. Ours has `from_pod` there, which checks the sender, finds the
  policy and notes the connection's way; the kernel's ways have a route, the same for everybody, and no
  policy. A tunnel's answers end in the pod, at the first program behind its device. *Native* is
  `egress.transport: native`.
- **the programs alone** are run by `BPF_PROG_TEST_RUN` with one fresh packet each, of which the kernel
  says the nanoseconds; what a program takes that does nothing is subtracted, and the kernel counts in
  steps of ten. Routes and redirects are real up to the return code. Beside them is what Cilium's programs
  took by the same method on another day and another machine: for `from_pod` its program on the pod node's
  way out (its program for packets of pods comes on top), for `egress_out` those from the tunnel and to the
  world together, for `egress_back` the one for answers. Instructions are those of the whole program, all
  protocols and both families.
- Lookups in maps per packet of a known flow: five on the way out (`WORK`, `RULES`, `NAT`,
  `GATEWAY_ROUTES`, `RULE_COUNTERS`), three back (`WORK`, `NAT`, `RULE_COUNTERS`; through the tunnel one
  more, `TUNNEL_ENDS`). Two are hashes on the way out, one back; the others are arrays. There is no prefix
  tree. Behind VXLAN the packet around it is looked at before, as any packet from the fabric: one lookup
  of `from_fabric`.
- **goals** are those of a gateway by itself, which is what was measured of Cilium. Behind VXLAN its goal is
  what it adds in all. What the path takes as a whole with a tunnel and with a pod's node in front has no goal, and
  stands here since it is what a packet costs: where a ratio is above 1, nftables with one route for
  everybody and no policy takes less.
- *by way of nftables'*: Cilium's gateway added 424 ns to plain forwarding for one flow, 870 for 50 000
  and 1387 for new ones on another day, where nftables `snat` added 232, 430 and 1365, all without VXLAN.
  Their ratio there times what nftables adds here is what Cilium would add here.
- The tables of nftables and iptables are as large as the kernel makes them without being told, 262 144
  entries; ours has its default, room for as many mappings, and under *live mappings* for 1.2 million,
  which is rounded up to 2.1 million.
  *Every one in turn* goes through all mappings, or through 100 000 of them: what it costs
  more than one flow is the memory's share, and so is what a new flow costs more among a million, where
  it finds others in its places of the hash.
- **policies** are two nodes by VXLAN. Each has a rule at the gateway, and a destination and an end of the
  tunnel at the pod's node, where the pod is under all of them.
- **one TCP stream** is through one router, both ends and the router on one core. What a stream gets
  changes from second to second; its goal is the median of what ours got in nftables', round by round.
";
