// SPDX-License-Identifier: Apache-2.0
//! Matching AS paths in time proportional to their length.
//!
//! A pattern becomes a nondeterministic automaton by Thompson's construction, and that a
//! deterministic one by the subset construction: one table lookup for each character. The few
//! patterns whose deterministic automaton would be too large are run as they are, with the set of
//! states they are in: slower by the size of the pattern, and linear too.

use std::collections::BTreeMap;

use bgp_wire::{AsPath, SegmentKind};
use router_types::{AS_PATH_ALPHABET, AsPathPattern, AsPathSymbols, AsPathTree, Asn};

/// Characters an AS path has.
const SYMBOLS: usize = AS_PATH_ALPHABET.len();
const SPACE: u8 = 10;
const COMMA: u8 = 11;

/// Most states of a deterministic automaton, 18 KiB of table. Arbitrary: usual patterns have
/// fewer than 50.
const MAX_STATES: usize = 512;

/// An AS path as the numbers of its characters.
#[derive(Debug, Default)]
pub(super) struct PathText(Vec<u8>);

impl PathText {
    /// The text of a path, as `AsPath`'s `Display` has it.
    pub(super) fn new(path: &AsPath) -> PathText {
        let mut text = Vec::with_capacity(64);
        for (index, segment) in path.segments.iter().enumerate() {
            if index > 0 {
                text.push(SPACE);
            }
            let (open, separator, close) = match segment.kind {
                SegmentKind::Sequence => (None, SPACE, None),
                SegmentKind::Set => (Some(12), COMMA, Some(13)),
                SegmentKind::ConfedSequence => (Some(14), SPACE, Some(15)),
                SegmentKind::ConfedSet => (Some(16), COMMA, Some(17)),
            };
            text.extend(open);
            for (index, asn) in segment.asns.iter().enumerate() {
                if index > 0 {
                    text.push(separator);
                }
                push_number(*asn, &mut text);
            }
            text.extend(close);
        }
        PathText(text)
    }
}

fn push_number(Asn(number): Asn, text: &mut Vec<u8>) {
    let mut digits = [0; 10];
    let mut rest = number;
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    text.extend_from_slice(&digits[first..]);
}

/// A pattern ready to be matched.
#[derive(Debug)]
pub(super) enum Matcher {
    /// As a table.
    Table(Table),
    /// As a set of states.
    States(Automaton),
}

impl Matcher {
    pub(super) fn new(pattern: &AsPathPattern) -> Matcher {
        let automaton = Automaton::new(pattern.tree());
        match Table::new(&automaton, MAX_STATES) {
            Some(table) => Matcher::Table(table),
            None => Matcher::States(automaton),
        }
    }

    /// For a single match: cheaper to make, dearer to use.
    pub(super) fn unprepared(pattern: &AsPathPattern) -> Matcher {
        Matcher::States(Automaton::new(pattern.tree()))
    }

    /// Whether the pattern matches any part of a path.
    pub(super) fn is_match(&self, text: &PathText) -> bool {
        match self {
            Matcher::Table(table) => table.is_match(&text.0),
            Matcher::States(automaton) => automaton.is_match(&text.0),
        }
    }
}

/// A state of the nondeterministic automaton.
#[derive(Clone, Copy, Debug)]
enum State {
    /// Reads one character.
    Read(AsPathSymbols, usize),
    /// Goes on at either without reading.
    Either(usize, usize),
    /// Goes on at the beginning of the path.
    AtStart(usize),
    /// Goes on at its end.
    AtEnd(usize),
    /// The pattern has matched.
    Matched,
}

/// Where in a path an automaton is, as far as that matters without reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct At {
    start: bool,
    end: bool,
}

impl At {
    const START: At = At {
        start: true,
        end: false,
    };
    const WITHIN: At = At {
        start: false,
        end: false,
    };

    fn and_end(self) -> At {
        At { end: true, ..self }
    }
}

/// The states an automaton is in, sorted: those that read or wait for the end.
type States = Vec<usize>;

/// A nondeterministic automaton.
#[derive(Debug)]
pub(super) struct Automaton {
    states: Vec<State>,
    begin: usize,
}

impl Automaton {
    fn new(tree: &AsPathTree) -> Automaton {
        let mut automaton = Automaton {
            states: vec![State::Matched],
            begin: 0,
        };
        automaton.begin = automaton.add(tree, 0);
        automaton
    }

    /// Adds what matches `tree` and goes on at `next`; returns where it begins.
    fn add(&mut self, tree: &AsPathTree, next: usize) -> usize {
        match tree {
            AsPathTree::Symbol(symbols) => self.push(State::Read(*symbols, next)),
            AsPathTree::Start => self.push(State::AtStart(next)),
            AsPathTree::End => self.push(State::AtEnd(next)),
            AsPathTree::Sequence(parts) => parts
                .iter()
                .rev()
                .fold(next, |next, part| self.add(part, next)),
            AsPathTree::Either(choices) => {
                let mut begins = choices.iter().map(|choice| self.add(choice, next));
                let begins: Vec<usize> = begins.by_ref().collect();
                let mut begins = begins.into_iter();
                let first = begins.next().unwrap_or(next);
                begins.fold(first, |a, b| self.push(State::Either(a, b)))
            }
            AsPathTree::Repeat {
                what,
                optional,
                many,
            } => {
                if !many {
                    let begin = self.add(what, next);
                    return self.push(State::Either(begin, next));
                }
                let again = self.push(State::Either(next, next));
                let begin = self.add(what, again);
                self.states[again] = State::Either(begin, next);
                if *optional { again } else { begin }
            }
        }
    }

    fn push(&mut self, state: State) -> usize {
        self.states.push(state);
        self.states.len() - 1
    }

    /// All states that can be reached without reading; `None` when the pattern has matched.
    fn close(&self, from: impl IntoIterator<Item = usize>, at: At) -> Option<States> {
        let mut seen = vec![false; self.states.len()];
        let mut todo: Vec<usize> = from.into_iter().collect();
        let mut found = Vec::new();
        while let Some(number) = todo.pop() {
            if std::mem::replace(&mut seen[number], true) {
                continue;
            }
            match self.states[number] {
                State::Matched => return None,
                State::Read(..) => found.push(number),
                State::Either(a, b) => todo.extend([a, b]),
                State::AtStart(next) if at.start => todo.push(next),
                State::AtStart(_) => {}
                State::AtEnd(next) if at.end => todo.push(next),
                // May be reached once more at the end.
                State::AtEnd(_) => found.push(number),
            }
        }
        found.sort_unstable();
        Some(found)
    }

    /// The states behind one more character. A match may begin at any character, so the beginning
    /// is always among them.
    fn step(&self, states: &States, symbol: u8) -> Option<States> {
        let next = states.iter().filter_map(|state| match self.states[*state] {
            State::Read(symbols, next) if symbols.has(symbol) => Some(next),
            _ => None,
        });
        self.close(next.chain([self.begin]), At::WITHIN)
    }

    fn matches_at_end(&self, states: &States, at: At) -> bool {
        let again = states.iter().copied().chain([self.begin]);
        self.close(again, at.and_end()).is_none()
    }

    fn is_match(&self, text: &[u8]) -> bool {
        let Some(mut states) = self.close([self.begin], At::START) else {
            return true;
        };
        let mut at = At::START;
        for symbol in text {
            match self.step(&states, *symbol) {
                Some(next) => states = next,
                None => return true,
            }
            at = At::WITHIN;
        }
        self.matches_at_end(&states, at)
    }
}

/// A deterministic automaton: for each state and character the next state.
#[derive(Debug)]
pub(super) struct Table {
    next: Vec<[u16; SYMBOLS]>,
    /// Whether a path that ends in the state matches.
    matches_at_end: Vec<bool>,
}

/// The state of a table in which the pattern has matched.
const MATCHED: u16 = 0;
/// The state in front of the first character. No other state is the same, because the path
/// begins here.
const BEGIN: u16 = 1;

impl Table {
    /// `None` when there were more than `most` states.
    fn new(automaton: &Automaton, most: usize) -> Option<Table> {
        let mut table = Table {
            next: vec![[MATCHED; SYMBOLS]; 2],
            matches_at_end: vec![true; 2],
        };
        let Some(begin) = automaton.close([automaton.begin], At::START) else {
            // It matches everything; so does a table that only leads to the matched state.
            return Some(table);
        };
        table.matches_at_end[usize::from(BEGIN)] = automaton.matches_at_end(&begin, At::START);
        let mut numbers: BTreeMap<States, u16> = BTreeMap::new();
        let mut todo = vec![(BEGIN, begin)];
        while let Some((from, states)) = todo.pop() {
            for symbol in 0..SYMBOLS {
                let Some(next) = automaton.step(&states, symbol as u8) else {
                    continue;
                };
                let number = match numbers.get(&next) {
                    Some(number) => *number,
                    None => {
                        let number = table.next.len();
                        if number >= most {
                            return None;
                        }
                        table.next.push([MATCHED; SYMBOLS]);
                        let at_end = automaton.matches_at_end(&next, At::WITHIN);
                        table.matches_at_end.push(at_end);
                        numbers.insert(next.clone(), number as u16);
                        todo.push((number as u16, next));
                        number as u16
                    }
                };
                table.next[usize::from(from)][symbol] = number;
            }
        }
        Some(table)
    }

    fn is_match(&self, text: &[u8]) -> bool {
        let mut state = BEGIN;
        for symbol in text {
            if state == MATCHED {
                break;
            }
            state = self.next[usize::from(state)][usize::from(*symbol)];
        }
        self.matches_at_end[usize::from(state)]
    }
}
