// SPDX-License-Identifier: Apache-2.0
use super::*;

const TWO_NODES: &str = "
name: pair
topology:
  defaults: { kind: linux, env: { A: 1, B: base } }
  groups:
    routers: { image: 'quay.io/frrouting/frr:10.3.1', sysctls: { net.ipv4.ip_forward: 1 } }
  nodes:
    r1: { group: routers, env: { B: own }, exec: ['ip addr add 10.0.0.1/24 dev eth1'] }
    h1: { image: 'debian:trixie' }
    sw: { kind: bridge }
  links:
    - endpoints: ['r1:eth1', 'h1:eth1']
      mtu: 1500
    - type: veth
      endpoints:
        - { node: h1, interface: eth2, mac: '02:00:00:00:00:01' }
        - { node: sw, interface: p1 }
";

fn parse(text: &str) -> Result<Topology> {
    Topology::parse(text, Path::new("/lab/x.clab.yml"))
}

fn message(text: &str) -> String {
    match parse(text) {
        Ok(topology) => panic!("accepted: {topology:?}"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn layers_are_merged_as_containerlab_does() {
    let topology = parse(TWO_NODES).expect("valid");
    let r1 = &topology.nodes["r1"];
    assert_eq!(r1.kind, NodeKind::Machine(Image::Frr));
    assert_eq!(r1.env["A"], "1");
    assert_eq!(r1.env["B"], "own");
    assert_eq!(r1.sysctls["net.ipv4.ip_forward"], "1");
    assert_eq!(r1.exec[0].len(), 6);
    assert_eq!(topology.nodes["sw"].kind, NodeKind::Bridge);
    assert_eq!(topology.links[0].mtu, 1500);
    assert_eq!(topology.links[1].mtu, DEFAULT_LINK_MTU);
    assert_eq!(
        topology.links[1].ends[0].mac.as_deref(),
        Some("02:00:00:00:00:01")
    );
}

#[test]
fn what_cannot_be_played_is_named() {
    let text = message(&TWO_NODES.replace("sw: { kind: bridge }", "sw: { kind: arista_ceos }"));
    assert!(
        text.contains("arista_ceos") && text.contains("`sw`"),
        "{text}"
    );
    let text = message(&TWO_NODES.replace("image: 'debian:trixie'", "volumes: [x]"));
    assert!(text.contains("volumes"), "{text}");
    let text = message(&TWO_NODES.replace("debian:trixie", "example/unheard-of:1"));
    assert!(text.contains("unheard-of"), "{text}");
    let text = message(&TWO_NODES.replace("'h1:eth1'", "'h9:eth1'"));
    assert!(text.contains("h9") && text.contains("h1, r1, sw"), "{text}");
    let text = message(&TWO_NODES.replace("interface: eth2", "interface: eth1"));
    assert!(text.contains("already"), "{text}");
    let text = message(&TWO_NODES.replace("type: veth", "type: vxlan"));
    assert!(text.contains("vxlan"), "{text}");
}

#[test]
fn words_are_split_without_a_shell() {
    let words = split_words(r#"vtysh -c "show ip bgp" -c 'a "b"' c\ d """#).expect("balanced");
    assert_eq!(
        words,
        ["vtysh", "-c", "show ip bgp", "-c", r#"a "b""#, "c d", ""]
    );
    assert!(split_words("echo 'x").is_err());
}
