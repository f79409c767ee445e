//! Did-you-mean.

/// The known names closest to a mistyped one, best first; empty when none is close.
pub fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Vec<String> {
    let mut scored: Vec<(f64, &str)> = known
        .into_iter()
        .map(|other| (strsim::jaro_winkler(name, other), other))
        .filter(|(score, _)| *score > 0.72)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.dedup_by(|a, b| a.1 == b.1);
    scored.into_iter().take(3).map(|(_, other)| other.to_string()).collect()
}

/// `; did you mean a or b?`, or `; known: a, b, c`.
pub fn suggest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let close = nearest(name, known.iter().copied());
    if !close.is_empty() {
        return format!("; did you mean {}?", close.join(" or "));
    }
    if known.is_empty() { String::new() } else { format!("; known: {}", known.join(", ")) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_typo_finds_its_word_and_nonsense_lists_all() {
        assert_eq!(super::suggest("transfomer", ["transformer", "hope"]), "; did you mean transformer?");
        assert_eq!(super::suggest("zzz", ["transformer", "hope"]), "; known: transformer, hope");
    }
}
