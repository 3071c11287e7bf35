// SPDX-License-Identifier: Apache-2.0
//! The registry of `CW` codes: what each means and what to do. `causeway explain` prints it; the
//! daemon names the codes in the issues of its status.
//!
//! A code is never given to anything else. Hundreds group them: 00 the command line, 01 what is
//! written in files, 02 BGP sessions, 03 routes, 04 pods, 05 the data plane, 06 the daemon,
//! 07 egress gateways.

/// One entry of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// `CW0123`.
    pub code: &'static str,
    /// What has happened, in a few words.
    pub title: &'static str,
    /// What it means, and what usually causes it.
    pub meaning: &'static str,
    /// What to do, in the order to try.
    pub remedy: &'static str,
}

/// The entry of a code, without regard to case; `CW` and leading zeros may be left out.
pub fn find(code: &str) -> Option<&'static Explanation> {
    let digits = code
        .trim_start_matches(['C', 'c'])
        .trim_start_matches(['W', 'w']);
    let number: u16 = digits.parse().ok()?;
    let name = format!("CW{number:04}");
    EXPLANATIONS.iter().find(|e| e.code == name)
}

const fn entry(
    code: &'static str,
    title: &'static str,
    meaning: &'static str,
    remedy: &'static str,
) -> Explanation {
    Explanation {
        code,
        title,
        meaning,
        remedy,
    }
}

/// Every code, in order.
pub const EXPLANATIONS: &[Explanation] = &[
    entry(
        "CW0001",
        "The daemon cannot be reached",
        "The command line talks to causewayd through a unix socket, and there was no answer on it: \
         the daemon does not run, listens elsewhere, or the socket belongs to a group you are not in.",
        "Look with `systemctl status causewayd`. Give another socket with --socket or \
         CAUSEWAY_SOCKET. Run as root, or join the group that owns the socket.",
    ),
    entry(
        "CW0002",
        "What was asked for is not there",
        "The daemon knows no object of that name: a peer, an instance, a resource, a pod.",
        "List what there is with the same command without the name, for example \
         `causeway bgp peers`. Peers go by their name, by instance/name, or by their address.",
    ),
    entry(
        "CW0003",
        "The daemon refused the request",
        "The request was understood and not carried out; the message says why.",
        "Mend what the message names and try again.",
    ),
    entry(
        "CW0004",
        "No answer in time",
        "The daemon has taken the request and has not answered within --timeout, or what was \
         waited for did not come within --wait-duration.",
        "Try again with a longer --timeout. If the daemon stays silent, its log shows what it is \
         busy with: `journalctl -u causewayd`.",
    ),
    entry(
        "CW0005",
        "An argument makes no sense",
        "A value on the command line is outside what the command takes.",
        "See `--help` of the command; its first lines are examples.",
    ),
    entry(
        "CW0006",
        "The JSONPath cannot be read",
        "The text after -o jsonpath= is neither an RFC 9535 path nor a template with paths in \
         braces.",
        "Paths look like $.items[*].name or {.items[*].name}. The document they are applied to is \
         what -o json prints.",
    ),
    entry(
        "CW0007",
        "The daemon does not know this request",
        "The daemon is older than this command line, or the part of it that would answer is not \
         configured.",
        "Compare the versions with `causeway version`; upgrade the older one.",
    ),
    entry(
        "CW0008",
        "Something failed inside the daemon",
        "The daemon met an error it did not expect while it answered.",
        "The log has the details: `journalctl -u causewayd`. Please report it with that log.",
    ),
    entry(
        "CW0009",
        "The node is not healthy",
        "At least one component is in error, or has a warning that --ignore-warnings would let \
         pass.",
        "Each issue in `causeway status` names the command that shows more.",
    ),
    entry(
        "CW0010",
        "A file cannot be read or written",
        "The operating system refused access to a file named on the command line.",
        "Check the path and its permissions.",
    ),
    entry(
        "CW0011",
        "The input holds no BGP message",
        "The text is not hexadecimal, or the bytes do not begin with a BGP header.",
        "Give hexadecimal digits (blanks, colons and 0x are skipped), a file of raw bytes or of \
         such digits, or - for standard input.",
    ),
    entry(
        "CW0012",
        "A message breaks the protocol",
        "At least one message was decoded with errors. Each is shown with the treatment RFC 7606 \
         demands.",
        "The sender has to be mended; the session survives where the treatment says so.",
    ),
    entry(
        "CW0101",
        "A file cannot be read",
        "The operating system refused to open or read a resource file.",
        "Check its permissions; the daemon reads it as its own user.",
    ),
    entry(
        "CW0102",
        "A file is too large",
        "Resource files are bounded so that a mistake cannot exhaust the daemon.",
        "Split it into several files of the resources directory.",
    ),
    entry(
        "CW0103",
        "A file is not UTF-8",
        "YAML is read as UTF-8 only.",
        "Save the file as UTF-8.",
    ),
    entry(
        "CW0104",
        "A file is not YAML",
        "The parser gave up at the place shown; often the cause is a line above it, such as an \
         indentation that does not match or a missing colon.",
        "Correct the place. The last good version of the file stays in force until then.",
    ),
    entry(
        "CW0105",
        "A file expands beyond what is accepted",
        "Aliases or nesting make the document much larger than the file.",
        "Write the repeated parts out, or split the file.",
    ),
    entry(
        "CW0106",
        "A key is there twice",
        "YAML mappings have unique keys; parsers differ in which one they take, so none is taken.",
        "Remove one of them.",
    ),
    entry(
        "CW0107",
        "A document is not a resource",
        "Each document needs apiVersion, kind and metadata.name.",
        "Add what is missing, or move other YAML out of the resources directory.",
    ),
    entry(
        "CW0108",
        "A kind is not known",
        "Causeway does not read objects of this kind. Other objects of the file are read.",
        "Check apiVersion and kind for typing errors; remove the object if it is for somebody else.",
    ),
    entry(
        "CW0109",
        "A field is not known",
        "The kind has no such field. In files that is an error, so that a typing error cannot \
         silently leave a default in force.",
        "The message suggests near names. Field names are case sensitive.",
    ),
    entry(
        "CW0110",
        "A field is missing",
        "The kind requires the field.",
        "Add it.",
    ),
    entry(
        "CW0111",
        "A value has the wrong type",
        "For example a text where a number is needed, or a single value where a list is needed.",
        "Write what the message allows. Numbers in quotes are texts.",
    ),
    entry(
        "CW0112",
        "A value is not allowed",
        "The value has the right type and is outside its range or set.",
        "Write one of the values the message allows.",
    ),
    entry(
        "CW0113",
        "Fields contradict each other",
        "A rule between fields is broken, such as a keepalive time longer than the hold time.",
        "Change one of the fields named.",
    ),
    entry(
        "CW0114",
        "An object is there twice",
        "Two documents have the same kind, namespace and name. The first, by the order of paths, \
         counts.",
        "Remove or rename one of them.",
    ),
    entry(
        "CW0115",
        "A field has no effect",
        "The field is accepted because existing manifests have it, and nothing is done with it.",
        "It may stay; remove it to silence the warning.",
    ),
    entry(
        "CW0201",
        "A BGP session is down",
        "The session with a peer is not established. The reason the speaker has is shown with it.",
        "`causeway bgp neighbor <peer>` shows the reason, the last notifications and the history \
         of states.",
    ),
    entry(
        "CW0202",
        "A peer does not answer, and a password is set",
        "With TCP MD5 a wrong password looks like silence: the kernel of either side drops the \
         other's segments. It may also be plain unreachability.",
        "Compare the passwords on both sides. `nstat -az TcpExtTCPMD5Failure` counts segments that \
         came with a wrong one.",
    ),
    entry(
        "CW0203",
        "A peer has another AS number than configured",
        "The OPEN message names another AS than peerASN.",
        "Correct peerASN, or the peer's configuration. peerASN 0 takes any.",
    ),
    entry(
        "CW0204",
        "A peer fell silent",
        "The hold timer ran out: no message came within the negotiated hold time.",
        "Look for a broken path, an overloaded peer, a smaller MTU on the way than both ends \
         believe, or an MD5 password that was replaced at one end only.",
    ),
    entry(
        "CW0205",
        "A peer refuses the connection",
        "The peer's host answered the connection with a reset: nothing listens, or it does not \
         know this node's address.",
        "Check that the peer has this node as neighbor, with the address shown as local.",
    ),
    entry(
        "CW0206",
        "The password of a peer is missing",
        "authSecretRef names a Secret that is not there or has no key `password`. The session is \
         not tried: an empty password would be none.",
        "Provide the Secret in the namespace of bgp.secretsNamespace.",
    ),
    entry(
        "CW0207",
        "A peer ended the session",
        "The peer sent a NOTIFICATION; its code and text are shown.",
        "The text says what the peer did not like; Cease codes are the peer's administrator.",
    ),
    entry(
        "CW0208",
        "The node is drained",
        "An operator asked for it with `causeway drain`: everything is announced with \
         GRACEFUL_SHUTDOWN (RFC 8326) for a while, then nothing is announced any more. Sessions stay. \
         It lasts over restarts of the daemon until it is ended.",
        "`causeway undrain` puts the node back into service. Where the state file cannot be read the \
         node counts as drained; the same command mends it.",
    ),
    entry(
        "CW0209",
        "A peer is not sent all routes",
        "export.maxRoutes is reached: routes beyond it wait until others are withdrawn, so that the \
         peer does not end the session for its own limit.",
        "Find out why there are that many: `causeway bgp routes advertised peer <peer>`. Aggregate or \
         filter them, or raise export.maxRoutes together with the peer's limit.",
    ),
    entry(
        "CW0210",
        "A peer sends nearly as many routes as it may, or more",
        "The routes taken from it have reached warningPercent of import.maxRoutes. Beyond the limit the \
         session ends, unless onMaxRoutes is Warn.",
        "Find out why there are that many: `causeway bgp routes available peer <peer>`. Have the peer \
         send fewer, reject some by policy, or raise import.maxRoutes.",
    ),
    entry(
        "CW0301",
        "A route is not in the kernel",
        "The route is wanted and the kernel refused it; it is tried again.",
        "`causeway fib explain <prefix>` shows the kernel's reason.",
    ),
    entry(
        "CW0302",
        "A next hop cannot be resolved",
        "No connected network or other route leads to the next hop of a learned route.",
        "Check the peer's next-hop (next-hop-self on route servers and reflectors), and the \
         addresses of the node's own devices.",
    ),
    entry(
        "CW0401",
        "No address is left for pods",
        "Every address of the node's pod CIDRs is in use or cooling down.",
        "`causeway pods` shows who uses them. Add a pod CIDR, or remove pods.",
    ),
    entry(
        "CW0402",
        "A pod's interface is not as it was made",
        "A device, address, route or program of the pod is missing.",
        "`causeway pods -o wide` shows which; restarting the pod makes it new.",
    ),
    entry(
        "CW0501",
        "The eBPF programs are not loaded",
        "The kernel refused a program or map, or the daemon lacks a capability. Pods have no \
         connectivity through them.",
        "The message has the kernel's words. The daemon needs CAP_BPF, CAP_NET_ADMIN and \
         CAP_PERFMON, and a mounted /sys/fs/bpf.",
    ),
    entry(
        "CW0502",
        "A map is nearly full",
        "When it is full, new endpoints or prefixes get no entry.",
        "`causeway pods` shows the endpoints that fill it; remove some, or move pods to another node.",
    ),
    entry(
        "CW0601",
        "The daemon uses an old configuration",
        "A file is broken; its last good version stays in force.",
        "`causeway resources` names the file; `causeway config check <path>` shows the errors.",
    ),
    entry(
        "CW0602",
        "etcd is not reached",
        "No endpoint of store.endpoints answers with a majority behind it, or its certificate, this \
         node's or a file of them is not as it should be: the message has the reason. Everything goes \
         on as without etcd; gateways that share no link have nobody to ask meanwhile, and what they \
         claim is written when it is back.",
        "Do what the message says. `etcdctl endpoint health` with the same endpoints and files shows \
         whether etcd itself is well. Files are read again for each attempt; other settings take a \
         restart of the daemon.",
    ),
    entry(
        "CW0603",
        "etcd is there and not used",
        "`store.endpoints` names an etcd and `egress.secretFile` is not set. Gateways that have no key \
         agree about nothing: claims are not written and there is no lease, so that who holds an \
         address is decided as without etcd.",
        "Give all nodes the same key (`head -c 32 /dev/urandom | base64`), name its file in \
         `egress.secretFile`, and restart the daemons. If etcd is not wanted, take `store` out of \
         causeway.yaml.",
    ),
    entry(
        "CW0701",
        "The ports of an egress address are nearly used up",
        "Four fifths of the ports that connections may get of an address of this gateway have some, \
         in one protocol. Connections to different destinations may share a port; those to one \
         address and port may not, and are refused when all ports have one to it.",
        "`causeway egress nat --egress-ip <address>` shows who has them. Give the policy more \
         addresses (egressIPs), a wider range (connections.sourcePorts), or shorter timeouts \
         (connections.timeouts), so that idle connections give theirs back.",
    ),
    entry(
        "CW0702",
        "An egress gateway refuses connections for want of a port",
        "In the last minute connections began to an address and port towards which every port of \
         every address of the rule has one. The pod is told that the host is unreachable. \
         Connections that live are not touched. Protocols without ports have one connection of each \
         kind at a time with a destination.",
        "`causeway egress nat --rule <number>` shows who has them, often one pod that does not close \
         what it opens. Give the policy more addresses (egressIPs), a wider range \
         (connections.sourcePorts), or shorter timeouts (connections.timeouts). The alarm ends a \
         minute after the last refusal.",
    ),
    entry(
        "CW0703",
        "An egress policy has no gateway",
        "No node matches the policy's node selector, none that matches is healthy, or none has an \
         address this node can send to. What the policy covers leaves under its address or not at \
         all, so that packets of the pods it selects are dropped.",
        "`causeway egress policies <policy>` shows its gateways and which are healthy. Label a node, \
         correct the node selector, or repair a gateway; a node with the taint \
         node.kubernetes.io/out-of-service is no gateway until it is taken off.",
    ),
    entry(
        "CW0704",
        "An egress gateway has no address to give, or no way out",
        "The address of the policy is on no device of the gateway, the device is missing or down, or \
         there is no address of the family of the destinations. Packets of that family are dropped.",
        "Put the address on a device of the gateway, or correct egressIP or interface of the policy. \
         Addresses that Causeway is to put on itself are written as egressIPs of an \
         EgressGatewayPolicy. Set a device that is down up.",
    ),
    entry(
        "CW0705",
        "An egress address belongs to another policy",
        "Two policies, or two gateway groups of one, hold the same address. The older policy has it, \
         of one policy the first group.",
        "Take the address out of one of them: `causeway egress policies` shows the addresses of each.",
    ),
    entry(
        "CW0706",
        "The table of connections of an egress gateway is nearly full, or full",
        "Nine tenths of the connections of a family that the gateway can hold are there. When it is \
         full new ones are refused; those that live are not touched.",
        "`causeway egress nat` shows them. Raise egress.maxMappings, which takes effect when the \
         tables are made anew: after a reboot, or when the node was no gateway for a while. Shorter \
         timeouts (connections.timeouts) and more gateways help at once.",
    ),
    entry(
        "CW0707",
        "Whether an egress policy selects a pod is not known",
        "The labels of the pod or of its namespace are not known. What it sends to the destinations of \
         the policy is dropped until they are.",
        "Is the Pod object there, in the right namespace and with the pod's UID, and the Namespace \
         object? `causeway resources` lists both. A runtime may give labels itself.",
    ),
    entry(
        "CW0708",
        "An egress policy does less than it says",
        "More addresses than a rule can have, more rules than there are numbers, or two pods of this \
         node with one address. The message says what applies.",
        "Do what the message says; `causeway egress policies` has it too.",
    ),
    entry(
        "CW0709",
        "Egress policies are not carried out",
        "The part of the daemon that carries them out did not start, has ended, or cannot read its \
         tables. What the kernel has stays as it is: connections go on, and changes of policies have \
         no effect.",
        "The log says why: `journalctl -u causewayd`. Restart the daemon; connections survive it.",
    ),
    entry(
        "CW0710",
        "The probe of an egress gateway is not answered",
        "The policy's `health.probe` gets no answer, at this gateway or at none. Another gateway that \
         gets one has taken this one's place, with its connections. Where none does, everything \
         stays where it is: it is the target that is dead, or the firewall that refuses the probe.",
        "The log has the reason at the change. Probes leave by the policy's interface with the \
         gateway's own address, which the firewall must let through. `causeway egress policies` \
         shows which gateways are healthy. One answer is enough to be well again; nothing moves back.",
    ),
    entry(
        "CW0711",
        "A gateway is not linked",
        "A gateway that lives, of this node's pods or of a policy both are gateways of, and this node \
         do not speak to each other. Connections are not copied between them and no address is handed \
         over; whoever holds addresses goes on. One that is linked with nobody takes nothing.",
        "The message has the reason, or says that the other end has it. All nodes need a key in common in \
         `egress.secretFile`; the file is read at each attempt, so that no restart is needed. TCP \
         `egress.peerPort` (4796) must pass between them.",
    ),
    entry(
        "CW0712",
        "The tunnel between pods' nodes and gateways is not there",
        "The device cw-egress could not be made or set up: the kernel has no driver for \
         egress.tunnelProtocol, another device or process has its UDP port, or a device of the name \
         is somebody else's. What policies cover is dropped on its way to or from other nodes; pods \
         on their gateway's own node are no exception. It is tried again every ten seconds.",
        "The message says which. Not every kernel has Geneve: `modprobe geneve` shows whether this one \
         does; without it set egress.tunnelProtocol to vxlan, on every node. `ss -lunp` and \
         `ip -d link show type vxlan` (or geneve) show who has the port.",
    ),
    entry(
        "CW0713",
        "The tunnel of another node speaks something else",
        "The other node is set to another egress.tunnelProtocol or egress.tunnelPort. Packets between \
         its pods and this gateway, or the other way round, arrive at a port nobody listens on and are \
         lost. Nodes tell each other on the link that those of policies with several gateways have; where \
         there is none nobody tells.",
        "Set both settings the same on every node and restart the daemons. Connections that live go on \
         when both ends speak the same again.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_well_formed_and_in_order() {
        for pair in EXPLANATIONS.windows(2) {
            assert!(
                pair[0].code < pair[1].code,
                "{} before {}",
                pair[0].code,
                pair[1].code
            );
        }
        for e in EXPLANATIONS {
            assert_eq!(e.code.len(), 6, "{}", e.code);
            assert!(e.code.starts_with("CW"), "{}", e.code);
            assert!(
                !e.title.ends_with('.') && e.remedy.ends_with('.'),
                "{}",
                e.code
            );
        }
    }

    #[test]
    fn a_code_is_found_in_any_spelling() {
        for spelling in ["CW0101", "cw0101", "0101", "101"] {
            assert_eq!(find(spelling).map(|e| e.code), Some("CW0101"), "{spelling}");
        }
        assert_eq!(find("CW9999"), None);
        assert_eq!(find("bgp"), None);
    }
}
