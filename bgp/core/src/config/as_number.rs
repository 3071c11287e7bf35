// SPDX-License-Identifier: Apache-2.0
//! Settings that change AS numbers in OPEN and in paths.

use router_types::Asn;
use serde::{Deserialize, Serialize};

use crate::serial;

/// Another AS number shown to one external neighbour, as when two ASes become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LocalAs {
    /// The AS number the neighbour sees in OPEN and in front of paths.
    #[serde(with = "serial::asn")]
    pub asn: Asn,
    /// Whether it is also put in front of received paths, so that the rest of the own AS sees it
    /// ("no-prepend" is false).
    pub prepend_received: bool,
    /// Whether the real AS number is left out of paths sent to the neighbour ("replace-as").
    pub replace: bool,
    /// Whether the real AS number is offered when the neighbour refuses this one with "bad peer AS"
    /// ("dual-as").
    pub dual: bool,
}

impl LocalAs {
    /// The number in front of both ASes' paths, without dual-as.
    pub fn new(asn: Asn) -> LocalAs {
        LocalAs {
            asn,
            prepend_received: true,
            replace: false,
            dual: false,
        }
    }
}

/// What is done with private AS numbers (RFC 6996) in paths sent to an external neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum PrivateAs {
    /// They stay. The default.
    #[default]
    Keep,
    /// They are removed from paths that have no others.
    RemoveWhenAlone,
    /// They are removed.
    Remove,
    /// The own AS number takes their place, so that the length stays.
    Replace,
}
