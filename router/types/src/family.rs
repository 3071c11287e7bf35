//! Address families (IANA "Address Family Numbers" and "SAFI Namespace").

use core::fmt;

/// Address family identifier (RFC 4760 §3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Afi(pub u16);

impl Afi {
    /// IP version 4.
    pub const IPV4: Afi = Afi(1);
    /// IP version 6.
    pub const IPV6: Afi = Afi(2);
}

/// Subsequent address family identifier (RFC 4760 §6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Safi(pub u8);

impl Safi {
    /// Unicast forwarding.
    pub const UNICAST: Safi = Safi(1);
    /// Multicast forwarding.
    pub const MULTICAST: Safi = Safi(2);
    /// MPLS-labelled VPN address (RFC 4364).
    pub const MPLS_VPN: Safi = Safi(128);
    /// Route target constraint (RFC 4684).
    pub const ROUTE_TARGET: Safi = Safi(132);
}

/// An address family and what is done with it, the key of every per-family table.
///
/// Any pair can be expressed, known or not: a peer may announce families this speaker has never
/// heard of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Family {
    /// Address family.
    pub afi: Afi,
    /// Subsequent address family.
    pub safi: Safi,
}

impl Family {
    /// IPv4 unicast.
    pub const IPV4_UNICAST: Family = Family {
        afi: Afi::IPV4,
        safi: Safi::UNICAST,
    };
    /// IPv6 unicast.
    pub const IPV6_UNICAST: Family = Family {
        afi: Afi::IPV6,
        safi: Safi::UNICAST,
    };
    /// IPv4 routes of VPNs (RFC 4364 §4.3.4).
    pub const VPNV4: Family = Family {
        afi: Afi::IPV4,
        safi: Safi::MPLS_VPN,
    };
    /// IPv6 routes of VPNs (RFC 4659 §3.2).
    pub const VPNV6: Family = Family {
        afi: Afi::IPV6,
        safi: Safi::MPLS_VPN,
    };
    /// Route target constraints (RFC 4684 §4).
    pub const ROUTE_TARGET: Family = Family {
        afi: Afi::IPV4,
        safi: Safi::ROUTE_TARGET,
    };
}

impl fmt::Display for Family {
    /// Writes `ipv4/unicast`, and numbers for what has no name here: `25/70`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.afi {
            Afi::IPV4 => f.write_str("ipv4")?,
            Afi::IPV6 => f.write_str("ipv6")?,
            Afi(n) => write!(f, "{n}")?,
        }
        match self.safi {
            Safi::UNICAST => f.write_str("/unicast"),
            Safi::MULTICAST => f.write_str("/multicast"),
            Safi::MPLS_VPN => f.write_str("/mpls_vpn"),
            Safi::ROUTE_TARGET => f.write_str("/route_target_constraints"),
            Safi(n) => write!(f, "/{n}"),
        }
    }
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn families_are_written_as_the_manifests_write_them() {
        assert_eq!(Family::IPV4_UNICAST.to_string(), "ipv4/unicast");
        assert_eq!(
            Family {
                afi: Afi(25),
                safi: Safi(70)
            }
            .to_string(),
            "25/70"
        );
    }
}
