//! Adding up the `test result:` lines that each test program of `cargo test` ends with.

/// Counts over all test programs that reported.
#[derive(Debug, Default, PartialEq)]
pub struct Summary {
    pub passed: u64,
    pub failed: u64,
    /// Tests marked as ignored. Those a filter left out were not asked for and are not counted.
    pub skipped: u64,
    /// How many programs reported. Without any, there is nothing to sum up.
    pub programs: u64,
}

impl Summary {
    /// Reads one line of output; every line but a result changes nothing.
    pub fn read(&mut self, line: &str) {
        if let Some([passed, failed, skipped]) = counts(line) {
            self.passed += passed;
            self.failed += failed;
            self.skipped += skipped;
            self.programs += 1;
        }
    }
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; ...` as [passed, failed, ignored].
fn counts(line: &str) -> Option<[u64; 3]> {
    let (_verdict, rest) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut parts = rest.split("; ");
    let mut count = |name: &str| parts.next()?.strip_suffix(name)?.trim_end().parse().ok();
    Some([count("passed")?, count("failed")?, count("ignored")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up() {
        let mut summary = Summary::default();
        for line in [
            "running 5 tests",
            "test a::b ... ok",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 9 filtered out; finished in 0.00s",
            "",
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
        ] {
            summary.read(line);
        }
        assert_eq!(summary, Summary { passed: 13, failed: 2, skipped: 1, programs: 2 });
    }

    #[test]
    fn other_lines_change_nothing() {
        let mut summary = Summary::default();
        for line in
            ["test result: unknown", "test result: ok. many passed; 0 failed; 0 ignored", " test result: ok."]
        {
            summary.read(line);
        }
        assert_eq!(summary, Summary::default());
    }
}
