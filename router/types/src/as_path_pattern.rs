// SPDX-License-Identifier: Apache-2.0
//! Patterns over AS paths: the regular expressions routers take, read into a tree.
//!
//! A pattern is tried on the path as text, `65001 65002 {65003,65004}`: numbers with a space
//! between, AS_SETs in braces with commas, confederation segments in parentheses and brackets. It
//! holds where it matches any part of that text.
//!
//! | written | matches |
//! |---|---|
//! | `0` to `9`, space, `,` | itself |
//! | `\{` `\}` `\(` `\)` `\[` `\]` | the bracket |
//! | `.` | any one character |
//! | `[12]`, `[1-4]`, `[^0-9]` | one character of a set, or one that is not in it |
//! | `_` | a space, comma or bracket, or the beginning or end of the path |
//! | `^`, `$` | the beginning, the end |
//! | `a*`, `a+`, `a?` | `a` any number of times, at least once, at most once |
//! | `ab`, `a\|b`, `(a)` | one after the other, either, a group |
//!
//! There is no bounded repetition (`a{2}`) and no back reference, so a match takes time
//! proportional to the length of the path.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

/// Most characters of a pattern. Arbitrary: the longest we saw in use has 120.
pub const MAX_PATTERN: usize = 256;

/// Most groups within each other. Arbitrary; bounds the recursion of whoever walks the tree.
const MAX_DEPTH: usize = 16;

/// The characters an AS path has, in the order of their numbers in an [`AsPathSymbols`].
pub const AS_PATH_ALPHABET: [char; 18] = [
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', ' ', ',', '{', '}', '(', ')', '[', ']',
];

/// A set of characters of AS paths: bit `n` is the `n`th of [`AS_PATH_ALPHABET`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AsPathSymbols(pub u32);

impl AsPathSymbols {
    /// Every character.
    pub const ALL: AsPathSymbols = AsPathSymbols((1 << AS_PATH_ALPHABET.len()) - 1);
    /// What separates numbers: everything but digits.
    pub const SEPARATORS: AsPathSymbols = AsPathSymbols(Self::ALL.0 & !0x3ff);

    /// Whether the `symbol`th character is in the set.
    pub const fn has(self, symbol: u8) -> bool {
        self.0 >> symbol & 1 == 1
    }
}

/// A pattern, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AsPathTree {
    /// One character of a set.
    Symbol(AsPathSymbols),
    /// The beginning of the path.
    Start,
    /// The end of the path.
    End,
    /// All, one after the other; nothing for none.
    Sequence(Vec<AsPathTree>),
    /// Any one of them.
    Either(Vec<AsPathTree>),
    /// Repeated.
    Repeat {
        /// What is repeated.
        what: Box<AsPathTree>,
        /// Whether it may be missing.
        optional: bool,
        /// Whether it may stand more than once.
        many: bool,
    },
}

/// A valid pattern over AS paths. Compares, reads and shows as its text.
#[derive(Clone)]
pub struct AsPathPattern {
    text: String,
    tree: AsPathTree,
}

/// Why a text is no pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AsPathPatternError {
    /// The character it is about, counted from 1.
    pub at: usize,
    /// What is wrong there and what to do about it.
    pub why: &'static str,
}

impl AsPathPattern {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text taken apart.
    pub fn tree(&self) -> &AsPathTree {
        &self.tree
    }
}

impl FromStr for AsPathPattern {
    type Err = AsPathPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let chars: Vec<char> = text.chars().take(MAX_PATTERN + 1).collect();
        if chars.is_empty() {
            return Err(AsPathPatternError {
                at: 1,
                why: "the pattern is empty: write `.*` for any path, `^$` for an empty one",
            });
        }
        if chars.len() > MAX_PATTERN {
            return Err(AsPathPatternError {
                at: MAX_PATTERN,
                why: "the pattern has more than 256 characters: write several",
            });
        }
        let mut parser = Parser {
            chars: &chars,
            next: 0,
            depth: 0,
        };
        let tree = parser.either()?;
        if parser.next < chars.len() {
            return Err(parser.error("a `)` without its `(`: write `\\)` for the bracket itself"));
        }
        Ok(AsPathPattern {
            text: text.into(),
            tree,
        })
    }
}

impl PartialEq for AsPathPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for AsPathPattern {}

impl fmt::Display for AsPathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for AsPathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl fmt::Display for AsPathPatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "character {}: {}", self.at, self.why)
    }
}

impl core::error::Error for AsPathPatternError {}

struct Parser<'a> {
    chars: &'a [char],
    next: usize,
    depth: usize,
}

impl Parser<'_> {
    fn error(&self, why: &'static str) -> AsPathPatternError {
        AsPathPatternError {
            at: self.next.min(self.chars.len().saturating_sub(1)) + 1,
            why,
        }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.next).copied()
    }

    fn either(&mut self) -> Result<AsPathTree, AsPathPatternError> {
        let mut choices = Vec::from([self.sequence()?]);
        while self.peek() == Some('|') {
            self.next += 1;
            choices.push(self.sequence()?);
        }
        Ok(match choices.len() {
            1 => choices.remove(0),
            _ => AsPathTree::Either(choices),
        })
    }

    fn sequence(&mut self) -> Result<AsPathTree, AsPathPatternError> {
        let mut parts = Vec::new();
        while let Some(c) = self.peek() {
            if matches!(c, '|' | ')') {
                break;
            }
            let part = self.atom()?;
            parts.push(self.repeated(part)?);
        }
        Ok(AsPathTree::Sequence(parts))
    }

    fn repeated(&mut self, what: AsPathTree) -> Result<AsPathTree, AsPathPatternError> {
        let (optional, many) = match self.peek() {
            Some('*') => (true, true),
            Some('+') => (false, true),
            Some('?') => (true, false),
            _ => return Ok(what),
        };
        if matches!(what, AsPathTree::Start | AsPathTree::End) {
            return Err(self.error("the beginning or end of a path cannot repeat"));
        }
        self.next += 1;
        if matches!(self.peek(), Some('*' | '+' | '?')) {
            return Err(self.error("a repetition of a repetition: write one of `*`, `+`, `?`"));
        }
        Ok(AsPathTree::Repeat {
            what: Box::new(what),
            optional,
            many,
        })
    }

    fn atom(&mut self) -> Result<AsPathTree, AsPathPatternError> {
        let Some(c) = self.peek() else {
            return Err(self.error("the pattern ends where a character should stand"));
        };
        let tree = match c {
            '^' => AsPathTree::Start,
            '$' => AsPathTree::End,
            '.' => AsPathTree::Symbol(AsPathSymbols::ALL),
            '_' => AsPathTree::Either(Vec::from([
                AsPathTree::Symbol(AsPathSymbols::SEPARATORS),
                AsPathTree::Start,
                AsPathTree::End,
            ])),
            '(' => return self.group(),
            '[' => return self.set(),
            '\\' => {
                self.next += 1;
                AsPathTree::Symbol(self.literal()?)
            }
            '*' | '+' | '?' => return Err(self.error("there is nothing in front to repeat")),
            '{' | '}' => {
                return Err(self.error(
                    "counted repetition is not supported; write `\\{` and `\\}` for the brackets of an AS_SET",
                ));
            }
            ']' => {
                return Err(self.error("a `]` without its `[`: write `\\]` for the bracket itself"));
            }
            _ => AsPathTree::Symbol(self.literal()?),
        };
        self.next += 1;
        Ok(tree)
    }

    /// The set of the one character at hand, which stays at hand.
    fn literal(&self) -> Result<AsPathSymbols, AsPathPatternError> {
        let symbol = self.peek().and_then(symbol_of);
        symbol.map(|n| AsPathSymbols(1 << n)).ok_or_else(|| {
            self.error("no AS path has this character: allowed are digits, space, comma and escaped brackets")
        })
    }

    fn group(&mut self) -> Result<AsPathTree, AsPathPatternError> {
        let open = self.next;
        if self.depth == MAX_DEPTH {
            return Err(self.error("more than 16 groups within each other"));
        }
        self.depth += 1;
        self.next += 1;
        let inner = self.either()?;
        if self.peek() != Some(')') {
            self.next = open;
            return Err(self.error("a `(` without its `)`: write `\\(` for the bracket itself"));
        }
        self.next += 1;
        self.depth -= 1;
        // Wrapped, so that a repetition applies to the group and not to a lone anchor in it.
        Ok(AsPathTree::Sequence(Vec::from([inner])))
    }

    fn set(&mut self) -> Result<AsPathTree, AsPathPatternError> {
        let open = self.next;
        self.next += 1;
        let negated = self.peek() == Some('^');
        if negated {
            self.next += 1;
        }
        let mut bits = 0;
        loop {
            match self.peek() {
                None => {
                    self.next = open;
                    return Err(
                        self.error("a `[` without its `]`: write `\\[` for the bracket itself")
                    );
                }
                Some(']') => break,
                Some(_) => bits |= self.set_member()?,
            }
        }
        if bits == 0 {
            return Err(
                self.error("an empty set matches nothing: write a character between `[` and `]`")
            );
        }
        self.next += 1;
        let bits = if negated { !bits } else { bits };
        Ok(AsPathTree::Symbol(AsPathSymbols(
            bits & AsPathSymbols::ALL.0,
        )))
    }

    fn set_member(&mut self) -> Result<u32, AsPathPatternError> {
        if self.peek() == Some('\\') {
            self.next += 1;
        }
        // Within a set the underscore stands for the separators; the path's ends are no characters.
        if self.peek() == Some('_') {
            self.next += 1;
            return Ok(AsPathSymbols::SEPARATORS.0);
        }
        let low = self.literal()?;
        self.next += 1;
        if self.peek() != Some('-') {
            return Ok(low.0);
        }
        self.next += 1;
        let high = self.literal()?;
        if !AsPathSymbols::SEPARATORS.has(low.0.trailing_zeros() as u8)
            && !AsPathSymbols::SEPARATORS.has(high.0.trailing_zeros() as u8)
            && low.0 <= high.0
        {
            self.next += 1;
            // All bits from the lower to the higher one.
            Ok((high.0 << 1) - low.0)
        } else {
            Err(self.error("a range goes from a digit to one that is not lower"))
        }
    }
}

/// The number of a character in [`AS_PATH_ALPHABET`].
fn symbol_of(c: char) -> Option<u8> {
    AS_PATH_ALPHABET
        .iter()
        .position(|known| *known == c)
        .map(|n| n as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn what_routers_take_is_read_and_shown_as_written() {
        for text in [
            "^$",
            "_65001_",
            "^65001( 65001)*$",
            "^(6451[2-9]|645[2-9][0-9])_.*_65000$",
            "[^0-9]",
            "\\{65003,65004\\}",
            "^[0-9]+ ?$",
            ".*",
            "(_65001_|_65002_)+",
            "1|",
        ] {
            assert_eq!(text.parse::<AsPathPattern>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn errors_say_where() {
        for (text, at) in [
            ("", 1),
            ("65001_(", 7),
            ("1)", 2),
            ("[1-", 3),
            ("[3-1]", 4),
            ("[]", 2),
            ("[12", 1),
            ("*1", 1),
            ("1**", 3),
            ("^*", 2),
            ("AS65001", 1),
            ("1{2}", 2),
            ("1\\", 2),
            ("1]", 2),
        ] {
            assert_eq!(text.parse::<AsPathPattern>().unwrap_err().at, at, "{text}");
        }
        let deep = "(".repeat(17) + &")".repeat(17);
        assert_eq!(deep.parse::<AsPathPattern>().unwrap_err().at, 17);
        assert!(
            "1".repeat(MAX_PATTERN + 1)
                .parse::<AsPathPattern>()
                .is_err()
        );
    }

    #[test]
    fn sets_hold_what_they_say() {
        let AsPathTree::Sequence(parts) = "[2-4_]".parse::<AsPathPattern>().unwrap().tree.clone()
        else {
            panic!("a sequence");
        };
        assert_eq!(
            parts,
            [AsPathTree::Symbol(AsPathSymbols(
                0b11100 | AsPathSymbols::SEPARATORS.0
            ))]
        );
    }
}
