// SPDX-License-Identifier: Apache-2.0
//! How values of other crates are written in recordings: as the texts operators know.

use std::collections::BTreeMap;

use router_types::{Afi, Asn, Family, Safi};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Anything with `Display` and `FromStr`.
pub(crate) mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use super::*;

    pub(crate) fn serialize<T: Display, S: Serializer>(v: &T, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(v)
    }

    pub(crate) fn deserialize<'de, T, D>(d: D) -> Result<T, D::Error>
    where
        T: FromStr,
        T::Err: Display,
        D: Deserializer<'de>,
    {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

/// An AS number as a number.
/// Values that have a text form, where there may be none.
pub(crate) mod text_option {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<T: Display, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(T::to_string).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = Option::<String>::deserialize(deserializer)?;
        let value = text.map(|text| text.parse());
        value.transpose().map_err(serde::de::Error::custom)
    }
}

pub(crate) mod asn {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(v: &Asn, s: S) -> Result<S::Ok, S::Error> {
        v.0.serialize(s)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Asn, D::Error> {
        u32::deserialize(d).map(Asn)
    }
}

/// An AS number as a number, or null.
pub(crate) mod asn_option {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(v: &Option<Asn>, s: S) -> Result<S::Ok, S::Error> {
        v.map(|asn| asn.0).serialize(s)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Asn>, D::Error> {
        Ok(Option::<u32>::deserialize(d)?.map(Asn))
    }
}

/// A role by its code, or null.
pub(crate) mod role_option {
    use bgp_wire::Role;

    use super::*;

    pub(crate) fn serialize<S: Serializer>(v: &Option<Role>, s: S) -> Result<S::Ok, S::Error> {
        v.map(|role| role as u8).serialize(s)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Role>, D::Error> {
        let code = Option::<u8>::deserialize(d)?;
        Ok(code.and_then(Role::from_code))
    }
}

/// A role by its code (RFC 9234 §4.1).
pub(crate) mod role {
    use bgp_wire::Role;

    use super::*;

    pub(crate) fn serialize<S: Serializer>(v: &Role, s: S) -> Result<S::Ok, S::Error> {
        (*v as u8).serialize(s)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Role, D::Error> {
        let code = u8::deserialize(d)?;
        Role::from_code(code).ok_or_else(|| D::Error::custom(format!("no role has code {code}")))
    }
}

/// A family as `[afi, safi]`.
pub(crate) mod family {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(v: &Family, s: S) -> Result<S::Ok, S::Error> {
        (v.afi.0, v.safi.0).serialize(s)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Family, D::Error> {
        let (afi, safi) = Deserialize::deserialize(d)?;
        Ok(Family {
            afi: Afi(afi),
            safi: Safi(safi),
        })
    }
}

/// A map by family as `[[afi, safi], value]` pairs.
pub(crate) mod by_family {
    use super::*;

    type Pair<T> = ((u16, u8), T);

    pub(crate) fn serialize<T: Serialize, S: Serializer>(
        v: &BTreeMap<Family, T>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.collect_seq(
            v.iter()
                .map(|(family, value)| ((family.afi.0, family.safi.0), value)),
        )
    }

    pub(crate) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        d: D,
    ) -> Result<BTreeMap<Family, T>, D::Error> {
        let pairs = Vec::<Pair<T>>::deserialize(d)?;
        Ok(pairs
            .into_iter()
            .map(|((afi, safi), value)| {
                (
                    Family {
                        afi: Afi(afi),
                        safi: Safi(safi),
                    },
                    value,
                )
            })
            .collect())
    }
}

/// Bytes as hexadecimal digits.
pub(crate) mod hex {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(v: &[u8], s: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(v.len() * 2);
        for byte in v {
            text.push(char::from_digit(u32::from(byte >> 4), 16).expect("a nibble"));
            text.push(char::from_digit(u32::from(byte & 15), 16).expect("a nibble"));
        }
        s.serialize_str(&text)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(d)?;
        let digits: Option<Vec<u8>> = text
            .chars()
            .map(|c| c.to_digit(16).map(|n| n as u8))
            .collect();
        match digits {
            Some(digits) if digits.len() % 2 == 0 => Ok(digits
                .chunks_exact(2)
                .map(|pair| pair[0] << 4 | pair[1])
                .collect()),
            _ => Err(D::Error::custom("not pairs of hexadecimal digits")),
        }
    }
}

/// Bytes as hexadecimal digits, or null.
pub(crate) mod hex_option {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Digits(#[serde(with = "super::hex")] Vec<u8>);

    pub(crate) fn serialize<S: Serializer>(v: &Option<Vec<u8>>, s: S) -> Result<S::Ok, S::Error> {
        v.clone().map(Digits).serialize(s)
    }

    pub(crate) fn deserialize<'de, D>(d: D) -> Result<Option<Vec<u8>>, D::Error>
    where
        D: Deserializer<'de>,
    {
        Ok(Option::<Digits>::deserialize(d)?.map(|Digits(bytes)| bytes))
    }
}

/// Shared bytes as hexadecimal digits.
pub(crate) mod shared_hex {
    use std::sync::Arc;

    use super::*;

    pub(crate) fn serialize<S: Serializer>(v: &Arc<[u8]>, s: S) -> Result<S::Ok, S::Error> {
        hex::serialize(v, s)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Arc<[u8]>, D::Error> {
        hex::deserialize(d).map(Into::into)
    }
}

/// A list of things with `Display` and `FromStr`.
pub(crate) mod texts {
    use std::fmt::Display;
    use std::str::FromStr;

    use super::*;

    pub(crate) fn serialize<T: Display, S: Serializer>(v: &[T], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(v.iter().map(ToString::to_string))
    }

    pub(crate) fn deserialize<'de, T, D>(d: D) -> Result<Vec<T>, D::Error>
    where
        T: FromStr,
        T::Err: Display,
        D: Deserializer<'de>,
    {
        let texts = Vec::<String>::deserialize(d)?;
        texts
            .iter()
            .map(|text| text.parse().map_err(D::Error::custom))
            .collect()
    }
}

/// A device index as a number.
pub(crate) mod link {
    use router_types::LinkIndex;

    use super::*;

    pub(crate) fn serialize<S: Serializer>(v: &LinkIndex, s: S) -> Result<S::Ok, S::Error> {
        v.0.serialize(s)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<LinkIndex, D::Error> {
        u32::deserialize(d).map(LinkIndex)
    }
}

/// A device index as a number, or null.
pub(crate) mod link_option {
    use router_types::LinkIndex;

    use super::*;

    pub(crate) fn serialize<S: Serializer>(v: &Option<LinkIndex>, s: S) -> Result<S::Ok, S::Error> {
        v.map(|link| link.0).serialize(s)
    }

    pub(crate) fn deserialize<'de, D>(d: D) -> Result<Option<LinkIndex>, D::Error>
    where
        D: Deserializer<'de>,
    {
        Ok(Option::<u32>::deserialize(d)?.map(LinkIndex))
    }
}
