// SPDX-License-Identifier: Apache-2.0
//! Where the time of a takeover goes, by the log of who took over.

use std::{
    fmt,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use harness::Node;

use crate::stream::Outcome;

const DAY: f64 = 86_400.0;

/// Times since the last answer before the silence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Phases {
    /// BFD hears the holder no more.
    pub(crate) unheard: Duration,
    /// All who were asked have not heard it either.
    pub(crate) dead: Duration,
    /// The standby has said that it holds the rule.
    pub(crate) claimed: Duration,
    /// The first answer, of the family that waited longer.
    pub(crate) answered: Duration,
}

/// The phases of a takeover that began some time after this.
pub(crate) fn of(
    begun: (Instant, SystemTime),
    standby: &Node,
    outcomes: &[Outcome; 2],
) -> Option<Phases> {
    let longest = outcomes.iter().max_by_key(|outcome| outcome.silence)?;
    let since = longest.silent_since?.saturating_duration_since(begun.0);
    let log = standby.log();
    let lines: Vec<(Duration, &str)> = lines(&log, begun.1).collect();
    let first = |text: &str| {
        let found = lines.iter().find(|(_, line)| line.contains(text));
        Some(found?.0.saturating_sub(since))
    };
    Some(Phases {
        unheard: first("gateway is not heard by BFD")?,
        dead: first("gateway is dead")?,
        claimed: first("held by this node")?,
        answered: longest.silence,
    })
}

/// Lines of a log after some time, with the time since; none that is more than half a day later.
pub(crate) fn lines(log: &str, begun: SystemTime) -> impl Iterator<Item = (Duration, &str)> {
    let begun = begun.duration_since(UNIX_EPOCH).unwrap_or_default();
    let begun = begun.as_secs_f64() % DAY;
    log.lines().filter_map(move |line| {
        let after = (second_of_day(line)? - begun).rem_euclid(DAY);
        (after < DAY / 2.0).then(|| (Duration::from_secs_f64(after), line))
    })
}

/// The time a line of the log begins with, `2026-01-31T23:59:59.123456Z`.
fn second_of_day(line: &str) -> Option<f64> {
    let time = line.split_once('T')?.1.split_once('Z')?.0;
    let mut parts = time.split(':');
    let mut part = || parts.next()?.parse::<f64>().ok();
    Some(part()? * 3600.0 + part()? * 60.0 + part()?)
}

impl fmt::Display for Phases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        write!(
            f,
            "not heard after {:.0} ms, dead {:.0}, claimed {:.0}, answers {:.0}",
            ms(self.unheard),
            ms(self.dead),
            ms(self.claimed),
            ms(self.answered)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_timed_from_their_first_word() {
        let log = "2026-11-22T00:00:02.250000Z  WARN early\n\
                   2026-11-22T00:00:03.500000Z  WARN late\nno time\n";
        let found: Vec<_> = lines(log, UNIX_EPOCH + Duration::from_secs(3)).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, Duration::from_millis(500));
        assert!(found[0].1.ends_with("late"));
    }
}
