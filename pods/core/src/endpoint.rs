// SPDX-License-Identifier: Apache-2.0
//! One pod interface, and the names it goes by.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::failure::{Code, Failure};

/// The number of an endpoint on this node: its key in the eBPF maps. Counted upwards, so that a
/// number is not reused while anybody could still mean its former holder.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EndpointId(pub u32);

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What the runtime calls an interface: a container and the device's name in it. CNI 1.1.0
/// §"Add": never used twice at a time within one network.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

impl Attachment {
    /// Longest container identifier taken. The runtimes use 64 hexadecimal digits; the bound
    /// keeps a journal line and a device alias within reason.
    pub const MAX_CONTAINER_ID_LENGTH: usize = 200;
    /// `IFNAMSIZ` without its terminating zero.
    pub const MAX_IFNAME_LENGTH: usize = 15;

    /// Takes both names, if the CNI specification and the kernel allow them.
    ///
    /// # Errors
    ///
    /// [`Code::InvalidEnvironment`] with the variable and what is allowed in it.
    pub fn new(container_id: &str, ifname: &str) -> Result<Attachment, Failure> {
        let mut characters = container_id.chars();
        let is_id = characters.next().is_some_and(|c| c.is_ascii_alphanumeric())
            && characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
            && container_id.len() <= Self::MAX_CONTAINER_ID_LENGTH;
        if !is_id {
            return Err(Failure::new(
                Code::InvalidEnvironment,
                format!(
                    "CNI_CONTAINERID {container_id:?} is not a container id: expected a letter or \
                     digit, then letters, digits, '_', '.' or '-', at most {} in all",
                    Self::MAX_CONTAINER_ID_LENGTH
                ),
            ));
        }
        let is_name = !ifname.is_empty()
            && ifname.len() <= Self::MAX_IFNAME_LENGTH
            && ifname != "."
            && ifname != ".."
            && ifname
                .chars()
                .all(|c| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '%'));
        if !is_name {
            return Err(Failure::new(
                Code::InvalidEnvironment,
                format!(
                    "CNI_IFNAME {ifname:?} is not a device name: expected 1 to {} printable \
                     characters without '/', ':', '%' and blanks",
                    Self::MAX_IFNAME_LENGTH
                ),
            ));
        }
        Ok(Attachment {
            container_id: container_id.to_owned(),
            ifname: ifname.to_owned(),
        })
    }

    /// The name of the device at the host's side: `cw` and ten hexadecimal digits of a hash.
    /// `salt` is 0 unless that name is another endpoint's.
    pub fn host_ifname(&self, salt: u32) -> String {
        format!("cw{:010x}", self.hash(salt) >> 24)
    }

    /// The MAC address of the device in the pod. Follows from the names alone, so that a pod
    /// whose device is made again keeps it.
    pub fn pod_mac(&self, salt: u32) -> Mac {
        Mac::local(0x0a, self.hash(salt))
    }

    /// The MAC address of the device at the host's side, the one behind the pod's gateways.
    pub fn host_mac(&self, salt: u32) -> Mac {
        Mac::local(0x0e, self.hash(salt))
    }

    /// FNV-1a over both names, then a finishing mix so that each bit of the names reaches each
    /// bit of the result. Stable across versions: device names on live nodes follow from it.
    fn hash(&self, salt: u32) -> u64 {
        let parts = [
            self.container_id.as_bytes(),
            &[0],
            self.ifname.as_bytes(),
            &[0],
            &salt.to_be_bytes(),
        ];
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in parts.into_iter().flatten() {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ (hash >> 33)
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container_id, self.ifname)
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// A locally administered unicast address: `prefix` (its bit 1 set, its bit 0 clear), then
    /// five octets of `hash`.
    fn local(prefix: u8, hash: u64) -> Mac {
        let h = hash.to_be_bytes();
        Mac([prefix, h[0], h[1], h[2], h[3], h[4]])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = String;

    fn try_from(text: String) -> Result<Mac, String> {
        text.parse()
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Mac, String> {
        let wrong =
            || format!("{text:?} is no MAC address: expected six octets such as 0a:00:00:00:00:01");
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(wrong)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() {
            Err(wrong())
        } else {
            Ok(Mac(octets))
        }
    }
}

/// A network namespace: where the runtime put it, and which one lay there. A path may come to
/// name another namespace; device and inode say whether it is still the one meant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NetnsRef {
    /// `CNI_NETNS`. Empty for an endpoint that was recovered from its device: what the kernel
    /// says of it has no path.
    pub path: String,
    /// Device number of the namespace's file.
    pub device: u64,
    /// Inode number of the namespace's file.
    pub inode: u64,
}

/// The pod an interface belongs to, as the runtime names it. For people and policies to read.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct PodRef {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_UID`; empty when the runtime gave none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// `args.cni.labels`, as they were when the pod was added. `None` when the runtime gave none,
    /// which says nothing of what they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// How far an endpoint has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Its addresses are its own; the kernel may hold all, some or nothing of it. The runtime has
    /// no answer.
    Creating,
    /// Links, routes and map entries are in, and the runtime may have been told.
    Ready,
}

/// A pod interface.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Its number.
    pub id: EndpointId,
    /// What the runtime calls it.
    #[serde(flatten)]
    pub attachment: Attachment,
    /// Name of the CNI network it was added to. GC speaks for one network at a time.
    pub network: String,
    /// The namespace of the pod.
    pub netns: NetnsRef,
    /// The pod, when the runtime said which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRef>,
    /// Name of the device at the host's side.
    pub host_ifname: String,
    /// MAC address of the device at the host's side.
    pub host_mac: Mac,
    /// MAC address of the device in the pod.
    pub pod_mac: Mac,
    /// Its addresses, at most one per family, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// MTU of both devices, in octets.
    pub mtu: u32,
    /// How far it has come.
    pub phase: Phase,
}

impl Endpoint {
    /// The mark on the device at the host's side (`ifalias`, at most 255 octets), by which a
    /// restarted daemon knows its own devices from everybody else's.
    pub fn alias(&self) -> String {
        format!("{}{} {}", Self::ALIAS_PREFIX, self.id, self.attachment)
    }

    /// What an alias of ours says, as far as it can be read.
    pub fn read_alias(alias: &str) -> Option<(EndpointId, Attachment)> {
        let (id, attachment) = alias.strip_prefix(Self::ALIAS_PREFIX)?.split_once(' ')?;
        let (container_id, ifname) = attachment.split_once('/')?;
        let id = EndpointId(id.parse().ok()?);
        Some((id, Attachment::new(container_id, ifname).ok()?))
    }

    /// How every alias of ours begins.
    pub const ALIAS_PREFIX: &'static str = "causeway pod ";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_macs_follow_from_the_attachment() {
        let a = Attachment::new("0123456789abcdef", "eth0").unwrap();
        assert_eq!(a.host_ifname(0), a.clone().host_ifname(0));
        assert_eq!(a.host_ifname(0).len(), 12);
        assert_ne!(a.host_ifname(0), a.host_ifname(1));
        assert_ne!(a.host_mac(0), a.pod_mac(0));
        // Unicast and locally administered (IEEE 802 §8.2).
        assert_eq!(a.pod_mac(0).0[0] & 3, 2);
        assert_eq!(a.host_mac(0).0[0] & 3, 2);
        let b = Attachment::new("0123456789abcdef", "net1").unwrap();
        assert_ne!(a.host_ifname(0), b.host_ifname(0));
    }

    #[test]
    fn the_hash_never_changes() {
        let a = Attachment::new("c0ffee", "eth0").unwrap();
        assert_eq!(a.host_ifname(0), "cwdcf7b778e2");
        assert_eq!(a.pod_mac(0).to_string(), "0a:dc:f7:b7:78:e2");
    }

    #[test]
    fn alias_fits_the_kernel_even_for_the_longest_names() {
        let longest = "a".repeat(Attachment::MAX_CONTAINER_ID_LENGTH);
        let attachment = Attachment::new(&longest, "abcdefghijklmno").unwrap();
        let alias = format!("{}{} {attachment}", Endpoint::ALIAS_PREFIX, u32::MAX);
        assert!(alias.len() < 256, "{}", alias.len());
        assert_eq!(
            Endpoint::read_alias(&alias),
            Some((EndpointId(u32::MAX), attachment))
        );
        for other in [
            "",
            "causeway pod ",
            "causeway pod 1 c",
            "causeway pod x c/eth0",
            "uplink",
        ] {
            assert_eq!(Endpoint::read_alias(other), None, "{other}");
        }
    }

    #[test]
    fn bad_names_are_refused_with_the_variable_in_the_message() {
        for id in ["", "-a", "a/b", "a b", "ä", &"a".repeat(201)] {
            let failure = Attachment::new(id, "eth0").unwrap_err();
            assert!(failure.message.contains("CNI_CONTAINERID"), "{id}");
        }
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "abcdefghijklmnop",
            "e%d",
            "é",
        ] {
            let failure = Attachment::new("c", name).unwrap_err();
            assert!(failure.message.contains("CNI_IFNAME"), "{name}");
        }
    }

    #[test]
    fn macs_are_read_as_they_are_written() {
        let mac: Mac = "0a:1b:00:ff:10:9c".parse().unwrap();
        assert_eq!(mac.to_string(), "0a:1b:00:ff:10:9c");
        for text in [
            "",
            "0a:1b:00:ff:10",
            "0a:1b:00:ff:10:9c:00",
            "a:1b:00:ff:10:9c",
            "zz:1b:00:ff:10:9c",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }
}
