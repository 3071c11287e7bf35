// SPDX-License-Identifier: Apache-2.0
//! How policies stand in recordings: numbers and the texts operators know.

use std::fmt::Display;
use std::str::FromStr;

use bgp_wire::Origin;
use router_types::{Afi, Asn, Family, Safi};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::community::CommunityPattern;
use super::model::AnyCommunity;

/// Families as `[afi, safi]` pairs.
pub(super) mod families {
    use super::*;

    pub(in crate::policy) fn serialize<S: Serializer>(
        v: &[Family],
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.collect_seq(v.iter().map(|family| (family.afi.0, family.safi.0)))
    }

    pub(in crate::policy) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Vec<Family>, D::Error> {
        let pairs = Vec::<(u16, u8)>::deserialize(d)?;
        let family = |(afi, safi)| Family {
            afi: Afi(afi),
            safi: Safi(safi),
        };
        Ok(pairs.into_iter().map(family).collect())
    }
}

/// ORIGIN by its code.
pub(super) mod origin {
    use super::*;

    pub(in crate::policy) fn serialize<S: Serializer>(v: &Origin, s: S) -> Result<S::Ok, S::Error> {
        (*v as u8).serialize(s)
    }

    pub(in crate::policy) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Origin, D::Error> {
        Origin::from_code(u8::deserialize(d)?).ok_or_else(|| D::Error::custom("no ORIGIN code"))
    }
}

/// Values of ORIGIN by their codes.
pub(super) mod origins {
    use super::*;

    pub(in crate::policy) fn serialize<S: Serializer>(
        v: &[Origin],
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.collect_seq(v.iter().map(|origin| *origin as u8))
    }

    pub(in crate::policy) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Vec<Origin>, D::Error> {
        let codes = Vec::<u8>::deserialize(d)?;
        let read = |code| Origin::from_code(code).ok_or_else(|| D::Error::custom("no ORIGIN code"));
        codes.into_iter().map(read).collect()
    }
}

/// AS numbers as numbers.
pub(super) mod asns {
    use super::*;

    pub(in crate::policy) fn serialize<S: Serializer>(v: &[Asn], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(v.iter().map(|asn| asn.0))
    }

    pub(in crate::policy) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Vec<Asn>, D::Error> {
        Ok(Vec::<u32>::deserialize(d)?.into_iter().map(Asn).collect())
    }
}

/// Communities as `[kind, text]` pairs.
pub(super) mod communities {
    use super::*;

    pub(in crate::policy) fn serialize<S: Serializer>(
        v: &[AnyCommunity],
        s: S,
    ) -> Result<S::Ok, S::Error> {
        let pair = |community: &AnyCommunity| {
            let kind = match community {
                AnyCommunity::Standard(_) => "standard",
                AnyCommunity::Large(_) => "large",
                AnyCommunity::Extended(_) => "extended",
            };
            (kind, community.to_string())
        };
        s.collect_seq(v.iter().map(pair))
    }

    pub(in crate::policy) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Vec<AnyCommunity>, D::Error> {
        let pairs = Vec::<(String, String)>::deserialize(d)?;
        let read = |(kind, text): (String, String)| match kind.as_str() {
            "standard" => parse(&text).map(AnyCommunity::Standard),
            "large" => parse(&text).map(AnyCommunity::Large),
            "extended" => parse(&text).map(AnyCommunity::Extended),
            _ => Err(D::Error::custom("no kind of communities")),
        };
        pairs.into_iter().map(read).collect()
    }
}

impl Serialize for CommunityPattern {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        (self.kind(), self.to_string()).serialize(s)
    }
}

impl<'de> Deserialize<'de> for CommunityPattern {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let (kind, text) = <(super::CommunityKind, String)>::deserialize(d)?;
        CommunityPattern::parse(kind, &text).map_err(D::Error::custom)
    }
}

fn parse<T, E>(text: &str) -> Result<T, E>
where
    T: FromStr,
    T::Err: Display,
    E: serde::de::Error,
{
    text.parse().map_err(E::custom)
}
