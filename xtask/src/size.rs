//! `cargo xtask size`: how long the source files are, and the budget they must keep (docs: house style, rule
//! 1).
//!
//! A file that holds one idea is short. The median keeps the habit, the limit per file catches the exception.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::output;
use crate::workspace::{Workspace, cannot_start};

/// A file above this many lines is a design fault.
const LONGEST: usize = 800;
/// The median of all files stays below this many lines.
const MEDIAN: usize = 250;
/// How many of the longest files the report names.
const NAMED: usize = 10;

/// Every source file of the tree, longest first.
pub struct Report {
    files: Vec<File>,
}

struct File {
    /// Relative to the root of the workspace.
    path: String,
    /// Name of the package it belongs to.
    package: String,
    lines: usize,
}

/// Prints the report, then fails if it is over budget.
pub fn command(workspace: &Workspace) -> Result<i32> {
    let report = measure(workspace)?;
    output::bytes(report.table().as_bytes())?;
    report.verdict()?;
    Ok(0)
}

/// Counts the lines of every .rs file that git tracks or would track.
pub fn measure(workspace: &Workspace) -> Result<Report> {
    let mut git = Command::new("git");
    git.arg("-C").arg(&workspace.root).args(["ls-files", "-z", "-co", "--exclude-standard", "--", "*.rs"]);
    let listed = git.stderr(Stdio::inherit()).output().with_context(|| cannot_start(&git))?;
    if !listed.status.success() {
        bail!("`git ls-files` failed in {}: sizes are counted in a git checkout", workspace.root.display());
    }
    let mut packages: Vec<(PathBuf, String)> = Vec::new();
    for package in &workspace.packages {
        let folder = package.folder();
        let folder = folder.strip_prefix(&workspace.root).unwrap_or(folder);
        packages.push((folder.to_owned(), package.name.clone()));
    }
    let mut files = Vec::new();
    for name in listed.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let path = String::from_utf8_lossy(name).into_owned();
        let full = workspace.root.join(&path);
        // git still lists a tracked file that was deleted but not committed yet.
        if full.is_file() {
            let text = fs::read(&full).with_context(|| format!("cannot read {}", full.display()))?;
            files.push(File { package: owner(&path, &packages), lines: count_lines(&text), path });
        }
    }
    Ok(Report::new(files))
}

/// The package whose folder is nearest above `path`.
fn owner(path: &str, packages: &[(PathBuf, String)]) -> String {
    let above = packages.iter().filter(|(folder, _)| Path::new(path).starts_with(folder));
    let nearest = above.max_by_key(|(folder, _)| folder.components().count());
    nearest.map_or_else(|| "(no crate)".to_owned(), |(_, name)| name.clone())
}

/// Lines as an editor numbers them: an unfinished last line counts.
fn count_lines(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
        + usize::from(text.last().is_some_and(|byte| *byte != b'\n'))
}

impl Report {
    fn new(mut files: Vec<File>) -> Self {
        files.sort_by(|a, b| b.lines.cmp(&a.lines).then_with(|| a.path.cmp(&b.path)));
        Self { files }
    }

    /// The middle file's length, or the mean of the two middle ones, rounded down.
    fn median(&self) -> usize {
        let lines = |index: usize| self.files.get(index).map_or(0, |file| file.lines);
        let middle = self.files.len() / 2;
        if self.files.len() % 2 == 1 {
            lines(middle)
        } else {
            (lines(middle) + lines(middle.saturating_sub(1))) / 2
        }
    }

    /// The report in one line.
    pub fn remark(&self) -> String {
        let longest = self.files.first().map_or(0, |file| file.lines);
        format!("{} files, median {} lines, longest {longest}", self.files.len(), self.median())
    }

    fn table(&self) -> String {
        let mut packages: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for file in &self.files {
            let (files, lines) = packages.entry(&file.package).or_default();
            *files += 1;
            *lines += file.lines;
        }
        let total = (self.files.len(), self.files.iter().map(|file| file.lines).sum::<usize>());
        let mut text = String::new();
        let mut row = |name: &str, files: &dyn std::fmt::Display, lines: &dyn std::fmt::Display| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name:<28} {files:>6} {lines:>8}");
        };
        row("crate", &"files", &"lines");
        for (name, (files, lines)) in packages {
            row(name, &files, &lines);
        }
        row("total", &total.0, &total.1);
        text.push_str("\nlongest files\n");
        for file in self.files.iter().take(NAMED) {
            let _ = writeln!(text, "{:>6}  {}", file.lines, file.path);
        }
        let _ =
            writeln!(text, "\n{} (limits: median below {MEDIAN}, no file above {LONGEST})", self.remark());
        text
    }

    /// An error that names every file over the limit, or the median.
    pub fn verdict(&self) -> Result<()> {
        let over: Vec<_> = self.files.iter().take_while(|file| file.lines > LONGEST).collect();
        if !over.is_empty() {
            let list: Vec<_> =
                over.iter().map(|file| format!("{} ({} lines)", file.path, file.lines)).collect();
            bail!("above {LONGEST} lines: {}; give each idea a file of its own", list.join(", "));
        }
        if self.median() >= MEDIAN {
            bail!(
                "the median file has {} lines, the limit is {}: split the longest",
                self.median(),
                MEDIAN - 1
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lines: &[usize]) -> Report {
        let file = |(index, lines): (usize, &usize)| File {
            path: format!("f{index}.rs"),
            package: if index % 2 == 0 { "even" } else { "odd" }.to_owned(),
            lines: *lines,
        };
        Report::new(lines.iter().enumerate().map(file).collect())
    }

    #[test]
    fn lines_are_counted_as_an_editor_does() {
        for (text, lines) in [("", 0), ("a", 1), ("a\n", 1), ("a\nb", 2), ("\n\n", 2)] {
            assert_eq!(count_lines(text.as_bytes()), lines, "{text:?}");
        }
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(report(&[]).median(), 0);
        assert_eq!(report(&[7]).median(), 7);
        assert_eq!(report(&[900, 1, 5]).median(), 5);
        assert_eq!(report(&[10, 1, 4, 5]).median(), 4);
    }

    #[test]
    fn the_budget_holds_at_its_edges() {
        assert!(report(&[800, 1, 1]).verdict().is_ok());
        assert!(report(&[249]).verdict().is_ok());
        let error = report(&[1, 801, 1]).verdict().unwrap_err().to_string();
        assert!(error.contains("f1.rs (801 lines)"), "{error}");
        assert!(report(&[250]).verdict().is_err());
    }

    #[test]
    fn the_table_sums_by_crate() {
        let text = report(&[10, 20, 30]).table();
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1..4], [vec!["even", "2", "40"], vec!["odd", "1", "20"], vec!["total", "3", "60"]]);
        assert_eq!(rows[6], ["30", "f2.rs"]);
    }

    #[test]
    fn a_file_belongs_to_the_nearest_crate() {
        let packages = [("plugin-api".into(), "api".to_owned()), ("plugin-api/ops".into(), "ops".to_owned())];
        assert_eq!(owner("plugin-api/ops/src/lib.rs", &packages), "ops");
        assert_eq!(owner("plugin-api/src/lib.rs", &packages), "api");
        assert_eq!(owner("plugin-api-2/src/lib.rs", &packages), "(no crate)");
    }
}
