// SPDX-License-Identifier: Apache-2.0
//! Waiting for a condition instead of for a time.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};

/// First pause between two looks; doubled up to [`PAUSE_MAX`]. Arbitrary: short enough to be
/// unnoticed, long enough to leave the processor to what is waited for.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause between two looks.
const PAUSE_MAX: Duration = Duration::from_millis(400);

/// Looks again and again until `attempt` succeeds, at most for `limit`.
///
/// # Errors
/// After `limit`: what was waited for, how long, and the last thing `attempt` saw.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    let mut pause = PAUSE_MIN;
    loop {
        let last = match attempt() {
            Ok(value) => return Ok(value),
            Err(last) => last,
        };
        if start.elapsed() >= limit {
            let seconds = limit.as_secs_f32();
            return Err(anyhow!(
                "waited {seconds} s for {what}; last seen: {last:#}"
            ));
        }
        thread::sleep(pause.min(limit.saturating_sub(start.elapsed())));
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_observation_is_in_the_failure() {
        let mut looks = 0;
        let result: Result<()> = wait_for("the moon", Duration::from_millis(120), || {
            looks += 1;
            Err(anyhow!("look {looks}: clouds"))
        });
        let text = result.expect_err("never true").to_string();
        assert!(
            text.contains("the moon") && text.contains(&format!("look {looks}")),
            "{text}"
        );
        assert!(looks > 1);
    }

    #[test]
    fn success_returns_at_once() {
        let mut left = 3;
        let value = wait_for("three looks", Duration::from_secs(60), || {
            left -= 1;
            if left == 0 {
                Ok(7)
            } else {
                Err(anyhow!("{left} left"))
            }
        });
        assert_eq!(value.expect("third look succeeds"), 7);
    }
}
