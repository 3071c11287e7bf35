// SPDX-License-Identifier: Apache-2.0
//! Failure detection beside the hold timer.

use bgp_bfd::profile::{Hops, Profile};
use serde::{Deserialize, Serialize};

/// A BFD session beside the BGP session (RFC 5882 §10.2). When it goes down, so does the BGP
/// session, at once, with Cease / BFD Down (RFC 9384).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct BfdSettings {
    /// Intervals and all else.
    pub profile: Profile,
    /// Whether the neighbour is one hop away or several; `None` finds out: one hop for a neighbour
    /// on a link of this node unless [`super::PeerConfig::ttl`] says otherwise.
    pub hops: Option<Hops>,
    /// Whether BGP waits for BFD to be up (draft-ietf-idr-bgp-bfd-strict-mode, as configured on
    /// this end alone). Default false: BGP comes up without, so that a neighbour without BFD costs
    /// detection, not connection.
    pub strict: bool,
}
