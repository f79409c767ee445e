//! The links check: every relative link in README.md and docs/ leads to a file of this repository.
//!
//! Links to the web are left alone, since a check must give the same answer without a network. Anchors are
//! not compared with headings: GitHub and mdBook disagree on how a heading becomes one.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{files, markdown};

/// Checks all pages and returns the number of relative links; an error lists every broken one.
pub fn check(root: &Path) -> Result<usize> {
    let mut pages: Vec<PathBuf> =
        files::list(&root.join("docs"), "md")?.iter().map(|page| Path::new("docs").join(page)).collect();
    if root.join("README.md").is_file() {
        pages.push("README.md".into());
    }
    let mut checked = 0;
    let mut broken = Vec::new();
    for page in pages {
        let path = root.join(&page);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        for link in markdown::links(&text) {
            let Some(target) = local_part(&link.target) else { continue };
            checked += 1;
            let fault = match resolve(&page, &target) {
                None => "leads out of the repository",
                Some(path) if root.join(&path).exists() => continue,
                Some(_) => "does not exist",
            };
            broken.push(format!("{}:{}: {} {fault}", page.display(), link.line, link.target));
        }
    }
    if !broken.is_empty() {
        bail!("broken links; correct the path or add the file:\n  {}", broken.join("\n  "));
    }
    Ok(checked)
}

/// The path in a link's target; none for a link to the web or within the page.
fn local_part(target: &str) -> Option<String> {
    let scheme = target.split_once(':').is_some_and(|(scheme, _)| {
        scheme.len() > 1 && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    });
    let path = target.split(['#', '?']).next().unwrap_or("");
    (!scheme && !target.starts_with("//") && !path.is_empty()).then(|| percent_decoded(path))
}

/// The target's path from the root of the repository, where a leading slash begins; none if it leads outside.
fn resolve(page: &Path, target: &str) -> Option<PathBuf> {
    let mut path = if target.starts_with('/') { PathBuf::new() } else { page.parent()?.to_owned() };
    for component in Path::new(target).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => path.pop().then_some(())?,
            Component::CurDir | Component::RootDir => {}
            Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

/// `%20` and its like; anything else stays as it is.
fn percent_decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_relative_links_are_local() {
        for target in ["https://a.b/c.md", "mailto:a@b.c", "#here", "//a.b/c", ""] {
            assert_eq!(local_part(target), None, "{target}");
        }
        assert_eq!(local_part("a%20b.md#part").as_deref(), Some("a b.md"));
        assert_eq!(local_part("100%.md?x").as_deref(), Some("100%.md"));
    }

    #[test]
    fn links_are_resolved_from_their_page() {
        let page = Path::new("docs/guide/a.md");
        assert_eq!(resolve(page, "../b.md"), Some("docs/b.md".into()));
        assert_eq!(resolve(page, "./c/d.md"), Some("docs/guide/c/d.md".into()));
        assert_eq!(resolve(page, "/README.md"), Some("README.md".into()));
        assert_eq!(resolve(page, "../../../x.md"), None);
    }

    #[test]
    fn broken_links_are_listed_with_page_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("docs/guide")).unwrap();
        fs::write(root.join("README.md"), "[docs](docs/guide/a.md) [folder](docs/)").unwrap();
        fs::write(root.join("docs/guide/a.md"), "# A\n[up](../../README.md#host) [web](https://x.y)")
            .unwrap();
        assert_eq!(check(root).unwrap(), 3);

        fs::write(root.join("docs/b.md"), "fine\n[gone](none.md)\n[out](../../x)").unwrap();
        let error = check(root).unwrap_err().to_string();
        assert!(error.contains("b.md:2: none.md does not exist"), "{error}");
        assert!(error.contains("b.md:3: ../../x leads out"), "{error}");
    }

    #[test]
    fn a_tree_without_pages_has_no_broken_links() {
        assert_eq!(check(tempfile::tempdir().unwrap().path()).unwrap(), 0);
    }
}
