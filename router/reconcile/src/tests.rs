// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::{Config, KeyState, Operation, Operations, Output, Reconciler, step};

#[test]
fn nothing_is_written_before_the_first_listing() {
    let now = Instant::now();
    let mut reconciler = Reconciler::<World>::new(config(), now);
    reconciler.set(1, 'a');
    assert_eq!(reconciler.poll_output(), Some(Output::List));
    assert_eq!(reconciler.poll_output(), None);
    reconciler.handle_listing_failed("broken".to_owned(), now);
    assert_eq!(reconciler.poll_output(), None);
    let (due, _) = reconciler.poll_timeout().unwrap();
    reconciler.handle_timeout(due);
    assert_eq!(reconciler.poll_output(), Some(Output::List));
    reconciler.handle_listing([]);
    assert_eq!(
        reconciler.poll_output(),
        Some(Output::Apply(vec![Operation::Update(1, 'a')]))
    );
}

#[test]
fn a_later_failed_listing_does_not_hold_up_writes() {
    let mut run = Run::new(World::default());
    run.settle();
    run.reconciler.resync();
    assert_eq!(run.reconciler.poll_output(), Some(Output::List));
    run.reconciler
        .handle_listing_failed("broken".to_owned(), run.now);
    run.reconciler.set(1, 'a');
    run.settle();
    assert_eq!(run.world.things, [(1, 'a')].into());
}

#[test]
fn equal_things_found_at_the_start_are_adopted_without_a_write() {
    let mut run = Run::new(World::with([(1, 'a'), (2, 'b')]));
    run.settle();
    assert_eq!(run.reconciler.status(&1).unwrap().state, KeyState::Stale);
    run.reconciler.set(1, 'a');
    run.reconciler.set(2, 'x');
    run.settle();
    assert_eq!(run.world.log, ["update 2"]);
    assert_eq!(run.reconciler.summary().applied, 2);
}

#[test]
fn unknown_things_stay_until_pruning_and_go_then() {
    let mut run = Run::new(World::with([(1, 'a'), (2, 'b')]));
    run.reconciler.set(1, 'a');
    run.settle();
    assert_eq!(run.world.things.len(), 2);
    assert_eq!(run.reconciler.summary().stale, 1);
    run.reconciler.prune();
    run.settle();
    assert_eq!(run.world.things, [(1, 'a')].into());
    assert_eq!(run.reconciler.status(&2), None);
}

#[test]
fn the_deadline_prunes_when_nobody_does() {
    let mut run = Run::new(World::with([(1, 'a')]));
    run.settle();
    run.pass(config().prune_deadline.unwrap());
    assert!(run.reconciler.is_pruning());
    assert!(run.world.things.is_empty());
}

#[test]
fn after_pruning_a_thing_nobody_wants_is_deleted_when_seen() {
    let mut run = Run::new(World::default());
    run.reconciler.prune();
    run.settle();
    run.world.things.insert(7, 'z');
    run.reconciler.handle_observed(7, Some('z'));
    run.settle();
    assert!(run.world.things.is_empty());
}

#[test]
fn what_somebody_deletes_or_changes_comes_back() {
    let mut run = Run::new(World::default());
    run.reconciler.set(1, 'a');
    run.reconciler.set(2, 'b');
    run.settle();
    run.world.things.remove(&1);
    run.reconciler.handle_observed(1, None);
    run.world.things.insert(2, 'x');
    run.settle();
    assert_eq!(
        run.world.things,
        [(1, 'a'), (2, 'x')].into(),
        "2 was not reported"
    );
    run.reconciler.resync();
    run.settle();
    assert_eq!(run.world.things, [(1, 'a'), (2, 'b')].into());
    assert_eq!(run.reconciler.summary().repaired, 2);
}

#[test]
fn a_failing_key_is_retried_ever_later_without_holding_up_others() {
    let mut run = Run::new(World::default());
    run.world.broken.push(1);
    run.reconciler.set(1, 'a');
    run.reconciler.set(2, 'b');
    run.settle();
    assert_eq!(run.world.things, [(2, 'b')].into());
    let status = run.reconciler.status(&1).unwrap();
    assert_eq!(status.state, KeyState::Failed);
    let failure = status.failure.unwrap().clone();
    assert_eq!(
        (failure.last_error.as_str(), failure.attempts),
        ("1 is broken", 1)
    );

    let mut delays = Vec::new();
    for _ in 0..8 {
        let (due, why) = run.reconciler.poll_timeout().unwrap();
        assert_eq!(why, "retry of a failed key");
        delays.push((due - run.now).as_secs());
        run.pass(due - run.now);
    }
    assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
    let now_failing = run.reconciler.status(&1).unwrap().failure.unwrap();
    assert_eq!(
        (now_failing.attempts, now_failing.since),
        (9, failure.since)
    );

    run.world.broken.clear();
    run.reconciler.set(1, 'c');
    run.settle();
    assert_eq!(
        run.world.things,
        [(1, 'c'), (2, 'b')].into(),
        "a new wish is tried at once"
    );
    assert_eq!(run.reconciler.status(&1).unwrap().failure, None);
}

#[test]
fn a_wish_changed_while_under_way_is_carried_out_afterwards() {
    let now = Instant::now();
    let mut reconciler = Reconciler::<World>::new(config(), now);
    assert_eq!(reconciler.poll_output(), Some(Output::List));
    reconciler.handle_listing([]);
    reconciler.set(1, 'a');
    assert_eq!(
        reconciler.poll_output(),
        Some(Output::Apply(vec![Operation::Update(1, 'a')]))
    );
    reconciler.remove(&1);
    assert_eq!(reconciler.poll_output(), None);
    reconciler.handle_result(&1, Ok(()), now);
    assert_eq!(
        reconciler.poll_output(),
        Some(Output::Apply(vec![Operation::Delete(1)]))
    );
    reconciler.handle_result(&1, Ok(()), now);
    assert_eq!(reconciler.status(&1), None);
    assert_eq!(reconciler.summary().wanted, 0);
}

#[test]
fn results_for_unknown_keys_are_ignored() {
    let mut run = Run::new(World::default());
    run.settle();
    run.reconciler
        .handle_result(&9, Err("what".to_owned()), run.now);
    run.reconciler.remove(&9);
    assert_eq!(run.reconciler.status(&9), None);
    assert_eq!(run.reconciler.poll_output(), None);
}

#[derive(Clone, Debug)]
enum Event {
    Set(u8, char),
    Remove(u8),
    /// Somebody changes the world; told or not.
    Meddle(u8, Option<char>, bool),
    Break(u8),
    Mend(u8),
    Step,
    Pass(u16),
    Resync,
    Prune,
}

fn event() -> impl Strategy<Value = Event> {
    let key = 0u8..6;
    let value = prop::sample::select(vec!['a', 'b']);
    prop_oneof![
        4 => (key.clone(), value.clone()).prop_map(|(k, v)| Event::Set(k, v)),
        2 => key.clone().prop_map(Event::Remove),
        2 => (key.clone(), prop::option::of(value), any::<bool>())
            .prop_map(|(k, v, told)| Event::Meddle(k, v, told)),
        1 => key.clone().prop_map(Event::Break),
        1 => key.prop_map(Event::Mend),
        4 => Just(Event::Step),
        2 => (0u16..200).prop_map(Event::Pass),
        1 => Just(Event::Resync),
        1 => Just(Event::Prune),
    ]
}

proptest! {
    /// Whatever happens, once everything works and a comparison was made, the world is what is
    /// wanted, and nothing else once pruned.
    #[test]
    fn the_world_converges(
        start in prop::collection::btree_map(0u8..6, prop::sample::select(vec!['a', 'b']), 0..6),
        events in prop::collection::vec(event(), 0..60),
    ) {
        let mut run = Run::new(World::with(start));
        let mut wanted = BTreeMap::new();
        for event in events {
            match event {
                Event::Set(key, value) => {
                    wanted.insert(key, value);
                    run.reconciler.set(key, value);
                }
                Event::Remove(key) => {
                    wanted.remove(&key);
                    run.reconciler.remove(&key);
                }
                Event::Meddle(key, value, told) => {
                    match value {
                        Some(value) => run.world.things.insert(key, value),
                        None => run.world.things.remove(&key),
                    };
                    if told {
                        run.reconciler.handle_observed(key, value);
                    }
                }
                Event::Break(key) => run.world.broken.push(key),
                Event::Mend(key) => run.world.broken.retain(|k| *k != key),
                Event::Step => {
                    run.step();
                }
                Event::Pass(seconds) => run.pass(Duration::from_secs(seconds.into())),
                Event::Resync => run.reconciler.resync(),
                Event::Prune => run.reconciler.prune(),
            }
        }
        run.world.broken.clear();
        run.reconciler.resync();
        run.settle();
        run.pass(config().retry_max);
        prop_assert_eq!(run.reconciler.summary().wanted, wanted.len());
        for (key, value) in &wanted {
            prop_assert_eq!(run.world.things.get(key), Some(value));
        }
        if run.reconciler.is_pruning() {
            prop_assert_eq!(&run.world.things, &wanted);
        }
        prop_assert_eq!(run.reconciler.summary().applied, wanted.len());
        prop_assert_eq!(run.reconciler.failures().count(), 0);
        // A second comparison finds nothing to do.
        run.world.log.clear();
        run.reconciler.resync();
        run.settle();
        prop_assert_eq!(&run.world.log, &Vec::<String>::new());
    }
}

/// A kernel of letters.
#[derive(Default)]
struct World {
    things: BTreeMap<u8, char>,
    broken: Vec<u8>,
    log: Vec<String>,
}

impl World {
    fn with(things: impl IntoIterator<Item = (u8, char)>) -> Self {
        World {
            things: things.into_iter().collect(),
            ..World::default()
        }
    }

    fn apply_one(&mut self, operation: &Operation<u8, char>) -> Result<(), String> {
        let key = *operation.key();
        if self.broken.contains(&key) {
            return Err(format!("{key} is broken"));
        }
        match operation {
            Operation::Update(key, value) => {
                self.log.push(format!("update {key}"));
                self.things.insert(*key, *value);
            }
            Operation::Delete(key) => {
                self.log.push(format!("delete {key}"));
                self.things.remove(key);
            }
        }
        Ok(())
    }
}

impl Operations for World {
    type Key = u8;
    type Desired = char;
    type Actual = char;
    type Error = String;

    fn is_as_desired(desired: &char, actual: &char) -> bool {
        desired == actual
    }

    async fn list(&mut self) -> Result<Vec<(u8, char)>, String> {
        Ok(self.things.iter().map(|(k, v)| (*k, *v)).collect())
    }

    async fn apply(&mut self, batch: &[Operation<u8, char>]) -> Vec<Result<(), String>> {
        batch
            .iter()
            .map(|operation| self.apply_one(operation))
            .collect()
    }
}

/// A reconciler, its world and a clock.
struct Run {
    reconciler: Reconciler<World>,
    world: World,
    now: Instant,
}

impl Run {
    fn new(world: World) -> Self {
        let now = Instant::now();
        Run {
            reconciler: Reconciler::new(config(), now),
            world,
            now,
        }
    }

    fn step(&mut self) -> bool {
        let now = self.now;
        block_on(step(&mut self.reconciler, &mut self.world, || now))
    }

    fn settle(&mut self) {
        while self.step() {}
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.reconciler.handle_timeout(self.now);
        self.settle();
    }
}

fn config() -> Config {
    Config {
        resync_interval: None,
        batch: 3,
        ..Config::default()
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the world of these tests never waits"),
    }
}
