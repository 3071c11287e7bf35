// SPDX-License-Identifier: Apache-2.0
//! "Did you mean".

/// The candidate a user most likely meant; `None` when none is near.
pub fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_ascii_lowercase();
    let distance = |c: &str| strsim::damerau_levenshtein(&typed, &c.to_ascii_lowercase());
    let measured = candidates.into_iter().map(|c| (distance(c), c));
    // A third of the letters may be wrong, and one of a short word.
    let near = measured.filter(|(d, _)| *d <= (typed.chars().count() / 3).max(1));
    near.min_by_key(|(d, _)| *d).map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        assert_eq!(nearest("tro-a", ["tor-a", "spine"]), Some("tor-a"));
        assert_eq!(nearest("Jsno", ["json", "yaml"]), Some("json"));
        assert_eq!(nearest("xyz", ["json", "yaml"]), None);
    }
}
