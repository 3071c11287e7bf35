// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What becomes of a packet that is larger than a tunnel takes whole.

use crate::nat::TunnelEnd;

/// The smallest MTU of IPv6, and the least a router may tell (RFC 8200 §5, RFC 4443 §3.2).
pub const IPV6_MIN_MTU: u32 = 1280;

/// It goes on: it fits, or the kernel cuts what it is wrapped in and the other end puts that together.
pub const GOES_ON: u32 = 0;

/// It goes nowhere, and there is nothing to tell its sender: IPv6 has no smaller packets than these.
pub const LOST: u32 = 1;

/// What becomes of a packet of these bytes: [`GOES_ON`], [`LOST`], or the MTU its sender is told
/// instead.
///
/// The kernel cuts what it wraps in IPv4 and not what it wraps in IPv6: there a packet that may be cut
/// is no better off than one that may not. May be cut: IPv4 without the bit that forbids it, and pieces
/// of a datagram of IPv6, whose sender has sent all of them by the time it hears of the first. `better`
/// is what another way to the same place takes whole, zero where there is none: it is what counts for
/// the sender.
#[must_use]
#[inline(always)]
pub const fn of(
    end: &TunnelEnd,
    ip_version: u8,
    wire_bytes: u32,
    may_be_cut: bool,
    better: u32,
) -> u32 {
    let mtu = end.mtu as u32;
    if mtu == 0 || wire_bytes <= mtu {
        return GOES_ON;
    }
    // Or, for a pod of this node, before it gets there.
    let is_cut_outside = end.ip_version != 6;
    if may_be_cut && is_cut_outside {
        return GOES_ON;
    }
    let told = if better > mtu { better } else { mtu };
    if ip_version == 4 || told >= IPV6_MIN_MTU {
        told
    } else if wire_bytes > IPV6_MIN_MTU {
        IPV6_MIN_MTU
    } else if is_cut_outside {
        GOES_ON
    } else {
        LOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(ip_version: u8, mtu: u16) -> TunnelEnd {
        TunnelEnd {
            ip_version,
            mtu,
            ..TunnelEnd::default()
        }
    }

    #[test]
    fn what_fits_goes_on_and_so_does_what_nobody_knows_about() {
        for version in [4, 6] {
            for may_be_cut in [true, false] {
                assert_eq!(of(&end(4, 1450), version, 1450, may_be_cut, 0), GOES_ON);
                assert_eq!(of(&end(6, 1430), version, 1430, may_be_cut, 0), GOES_ON);
                assert_eq!(of(&end(0, 0), version, 9000, may_be_cut, 0), GOES_ON);
            }
        }
    }

    #[test]
    fn senders_are_told_the_mtu_unless_the_packet_may_be_cut_and_is() {
        assert_eq!(of(&end(4, 1450), 4, 1451, true, 0), GOES_ON);
        assert_eq!(of(&end(4, 1450), 4, 1451, false, 0), 1450);
        assert_eq!(of(&end(6, 1430), 4, 1431, true, 0), 1430);
        assert_eq!(of(&end(6, 1430), 4, 1431, false, 0), 1430);
        assert_eq!(of(&end(4, 1450), 6, 1451, false, 0), 1450);
        assert_eq!(of(&end(6, 1430), 6, 1431, false, 0), 1430);
        assert_eq!(of(&end(4, 1450), 6, 1451, true, 0), GOES_ON);
        assert_eq!(of(&end(6, 1430), 6, 1431, true, 0), 1430);
        assert_eq!(of(&end(0, 1500), 4, 1501, true, 0), GOES_ON);
        assert_eq!(of(&end(0, 1500), 4, 1501, false, 0), 1500);
    }

    #[test]
    fn ipv6_is_never_told_less_than_its_minimum() {
        assert_eq!(of(&end(4, 1200), 6, 1281, false, 0), 1280);
        assert_eq!(of(&end(4, 1200), 6, 1280, false, 0), GOES_ON);
        assert_eq!(of(&end(6, 1200), 6, 1281, false, 0), 1280);
        assert_eq!(of(&end(6, 1200), 6, 1280, false, 0), LOST);
        assert_eq!(of(&end(4, 1200), 4, 1201, false, 0), 1200);
    }

    #[test]
    fn a_better_way_is_what_the_sender_is_told() {
        assert_eq!(of(&end(4, 1450), 4, 1501, false, 1500), 1500);
        assert_eq!(of(&end(4, 1450), 6, 1501, false, 1500), 1500);
        assert_eq!(of(&end(4, 1450), 6, 1460, false, 1300), 1450);
    }
}
