// SPDX-License-Identifier: Apache-2.0
//! A time to wait for.

use std::pin::Pin;
use std::time::Instant;

use tokio::time::Sleep;

/// Waits for times, and asks the runtime again only when one differs from the last: who is woken
/// for other reasons mostly waits for the same time as before.
#[derive(Default, Debug)]
pub(crate) struct Alarm {
    set: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Alarm {
    /// Waits for a time; for none, for ever.
    pub(crate) async fn until(&mut self, at: Option<Instant>) {
        let Some(at) = at else {
            return std::future::pending().await;
        };
        let (set, sleep) = self
            .set
            .get_or_insert_with(|| (at, Box::pin(tokio::time::sleep_until(at.into()))));
        if *set != at {
            *set = at;
            sleep.as_mut().reset(at.into());
        }
        sleep.await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_rings_at_each_time_it_is_set_to() {
        let begin = Instant::now();
        let mut alarm = Alarm::default();
        for millis in [30, 50, 40] {
            let at = begin + Duration::from_millis(millis);
            alarm.until(Some(at)).await;
            assert!(Instant::now() >= at);
        }
        let never = tokio::time::timeout(Duration::from_millis(10), alarm.until(None));
        assert!(never.await.is_err());
    }
}
