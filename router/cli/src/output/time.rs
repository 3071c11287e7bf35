// SPDX-License-Identifier: Apache-2.0
//! Times: RFC 3339 for programs, relative for people.

use std::time::{SystemTime, UNIX_EPOCH};

use router_resources::Timestamp;
use serde_json::Value;

const SECOND: i64 = 1_000_000_000;

/// The present, Unix time in nanoseconds.
pub fn now_unix_ns() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "for people to read")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
}

/// A time for JSON; null for 0, which means "not known".
pub fn rfc3339(unix_ns: i64) -> Value {
    match unix_ns {
        0 => Value::Null,
        _ => Value::String(Timestamp(unix_ns.div_euclid(SECOND)).to_string()),
    }
}

/// How long ago, in the largest two units: `45s`, `3m12s`, `5h3m`, `12d4h`. `-` for 0.
pub fn age(unix_ns: i64, now_unix_ns: i64) -> String {
    if unix_ns == 0 {
        return "-".to_owned();
    }
    let seconds = (now_unix_ns - unix_ns).max(0) / SECOND;
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    match () {
        () if seconds < 60 => format!("{seconds}s"),
        () if seconds < 3600 => format!("{minutes}m{}s", seconds % 60),
        () if seconds < 86400 => format!("{hours}h{minutes}m"),
        () => format!("{days}d{hours}h"),
    }
}

/// A duration rounded to seconds the way `cilium bgp peers` writes it: `1h2m3s`, `2m0s`, `0s`.
pub fn go_duration(ns: i64) -> String {
    let seconds = (ns.max(0) + SECOND / 2) / SECOND;
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match () {
        () if seconds < 60 => format!("{rest}s"),
        () if seconds < 3600 => format!("{minutes}m{rest}s"),
        () => format!("{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_keep_two_units() {
        let ago = |seconds: i64| age(SECOND, (1 + seconds) * SECOND);
        assert_eq!(ago(45), "45s");
        assert_eq!(ago(192), "3m12s");
        assert_eq!(ago(5 * 3600 + 180), "5h3m");
        assert_eq!(ago(12 * 86400 + 4 * 3600), "12d4h");
        assert_eq!(age(2 * SECOND, SECOND), "0s", "a clock that went back");
        assert_eq!(age(0, SECOND), "-");
    }

    #[test]
    fn uptimes_are_rounded_to_seconds() {
        assert_eq!(go_duration(3_723 * SECOND + SECOND / 2 - 1), "1h2m3s");
        assert_eq!(go_duration(120 * SECOND), "2m0s");
        assert_eq!(go_duration(SECOND / 2), "1s");
        assert_eq!(go_duration(0), "0s");
    }

    #[test]
    fn json_times_are_rfc_3339() {
        assert_eq!(rfc3339(1_763_694_845 * SECOND), "2025-11-21T03:14:05Z");
        assert_eq!(rfc3339(0), Value::Null);
    }
}
