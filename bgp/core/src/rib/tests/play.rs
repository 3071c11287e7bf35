// SPDX-License-Identifier: Apache-2.0
//! How tables are played against a slow model.

use super::*;

/// Has everything happen, and compares now and then and in the end.
pub(super) fn play<W, S>(
    world: &mut W,
    steps: impl IntoIterator<Item = S>,
    take: fn(&mut W, S),
    settle_and_compare: fn(&mut W),
) {
    for (at, step) in steps.into_iter().enumerate() {
        take(world, step);
        if at % 16 == 15 {
            settle_and_compare(world);
        }
    }
    settle_and_compare(world);
}

/// When all neighbours and all that is the node's own are gone, nothing is kept.
pub(super) fn nothing_is_left(rib: &mut Rib, now: Instant) {
    rib.handle(local(&[]), now);
    let _ = rib.poll_transmit(&"anybody".into());
    rib.waiting();
    let stats = rib.stats();
    let left = (stats.routes, stats.attribute_sets, stats.next_hops);
    assert_eq!(left, (0, 0, 0), "{stats:?}");
}
