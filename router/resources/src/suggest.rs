// SPDX-License-Identifier: Apache-2.0
//! "Did you mean …?"

/// The candidate nearest to what was written, if one is near enough to be meant: the same but for
/// case, or at most a third of the letters different.
pub(crate) fn nearest<'a>(
    written: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let written = written.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (distance(&written, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().max(written.len()).div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The number of insertions, deletions, replacements and swaps of neighbours between two words.
fn distance(a: &str, b: &str) -> usize {
    /// Longer words are cut: nobody means a field with a name like that.
    const LONGEST: usize = 64;
    let a: Vec<char> = a.chars().take(LONGEST).collect();
    let b: Vec<char> = b.chars().take(LONGEST).collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        rows[i][0] = i;
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_found_and_far_ones_are_not() {
        let fields = [
            "holdTimeSeconds",
            "keepAliveTimeSeconds",
            "connectRetryTimeSeconds",
        ];
        assert_eq!(nearest("holdTimeSecond", fields), Some("holdTimeSeconds"));
        assert_eq!(
            nearest("keepaliveTimeSeconds", fields),
            Some("keepAliveTimeSeconds")
        );
        assert_eq!(nearest("hodlTimeSeconds", fields), Some("holdTimeSeconds"));
        assert_eq!(nearest("password", fields), None);
    }
}
