// SPDX-License-Identifier: Apache-2.0
//! Conditions: what is said about an object, in the form Kubernetes uses.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether what a condition's type names is the case.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[expect(missing_docs, reason = "the three values of Kubernetes")]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

/// One statement about an object, with the time since when it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What is stated, `cilium.io/MissingPeerConfigs`.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 316))]
    pub condition_type: String,
    /// Whether it is so.
    pub status: ConditionStatus,
    /// Why, in one CamelCase word.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// Why, in words, with the names of other objects involved and what to do.
    #[schemars(length(max = 32768))]
    pub message: String,
    /// The generation of the object the statement is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// When `status` last changed, RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: Timestamp,
}

/// A statement as a subsystem makes it; the store adds generation and time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Statement {
    /// See [`Condition::condition_type`].
    pub condition_type: &'static str,
    /// See [`Condition::status`].
    pub status: ConditionStatus,
    /// See [`Condition::reason`].
    pub reason: &'static str,
    /// See [`Condition::message`].
    pub message: String,
}

impl Statement {
    /// A statement that something is the case.
    pub fn is_true(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Statement {
            condition_type: kind,
            status: ConditionStatus::True,
            reason,
            message: message.into(),
        }
    }

    /// A statement that something is not the case.
    pub fn is_false(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Statement {
            condition_type: kind,
            status: ConditionStatus::False,
            reason,
            message: message.into(),
        }
    }
}

/// A moment in whole seconds, written in RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The moment as the system's clock type.
    pub fn to_system_time(self) -> SystemTime {
        let seconds = Duration::from_secs(self.0.unsigned_abs());
        if self.0 >= 0 {
            UNIX_EPOCH + seconds
        } else {
            UNIX_EPOCH - seconds
        }
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Timestamp(after.as_secs() as i64),
            Err(before) => Timestamp(-(before.duration().as_secs() as i64)),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.0.div_euclid(86400), self.0.rem_euclid(86400));
        // Days since 0000-03-01 in eras of 400 years: years then begin in March, so that the day
        // a leap year adds is the last one.
        let day = days + 719_468;
        let (era, day_of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day_of_month:02}T{h:02}:{m:02}:{s:02}Z"
        )
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_rfc3339(&text).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "'{text}' is not a time such as 2026-01-31T12:00:00Z"
            ))
        })
    }
}

impl JsonSchema for Timestamp {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date-time" })
    }
}

/// Reads an RFC 3339 time in UTC; fractions of a second are dropped.
pub(crate) fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let number = |s: &str| {
        s.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| s.parse::<i64>().ok())?
    };
    let mut date = date.split('-').map(number);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.split(['.', ':']).map(number);
    let (h, m, s) = (time.next()??, time.next()??, time.next()??);
    if !(0..=9999).contains(&year)
        || !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || h > 23
        || m > 59
        || s > 60
    {
        return None;
    }
    let (year, month) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    Some(Timestamp(days * 86400 + h * 3600 + m * 60 + s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_as_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(Timestamp(seconds).to_string(), text);
            assert_eq!(parse_rfc3339(text), Some(Timestamp(seconds)));
        }
        assert_eq!(
            parse_rfc3339("1970-01-01T00:00:01.999Z"),
            Some(Timestamp(1))
        );
        for text in [
            "",
            "1970-01-01",
            "1970-13-01T00:00:00Z",
            "x-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}
