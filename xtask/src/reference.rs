//! `cargo xtask docs`: docs/op-reference.md, written from the op table.
//!
//! The table is what the façade, the graph and every device agree on, so a page kept by hand could only differ from
//! it. The page is in the repository nevertheless, because people read it there and see in a review what a new row
//! adds; a test and `cargo xtask check` refuse one that is not what the table says.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ops::{Class, DType, MAX_RANK, OP_SET_VERSION, Op, Row};

use crate::workspace::Workspace;
use crate::{files, output};

/// What the sections say about the classes, by the class's name. A class that is missing here has a section without
/// a paragraph.
const SECTIONS: &[(&str, &str, &str)] = &[
    (
        "Leaf",
        "Leaves",
        "No operands. Inputs and States are declared by the host; constants and indices cost nothing \
      until something is computed from them.",
    ),
    (
        "Elementwise",
        "Element-wise",
        "One value per element, from the same element of each operand. Operands share one \
      shape and, where there are several numbers, one dtype: nothing is repeated or promoted silently.",
    ),
    (
        "Movement",
        "Movement",
        "Elements in another place or shape. A movement is a view wherever strides can say it.",
    ),
    ("Indexing", "Indexing", "Rows chosen by integer operands."),
    (
        "Reduce",
        "Reductions",
        "Axes are folded to size 1 and stay, so that the result has the rank of its operand.",
    ),
    ("Ordered", "Ordered", "What depends on the order of the elements along an axis."),
    ("Contraction", "Contraction", "Sums of products over pairs of axes: every matrix product."),
    (
        "Structure",
        "Structure",
        "What the program does rather than what a value is. `Scan` and `When` are not emitted: a plugin begins a region, \
      emits its body and ends it. An op with several results is no tensor; `Result` takes one of them.",
    ),
    (
        "Composite",
        "Composites",
        "Named operations whose meaning is their decomposition into the ops above. A device may \
      have a kernel for one; the decomposition remains the oracle, and what derivatives are taken of.",
    ),
];

/// An op that takes this many operands or more takes any number.
const MANY: usize = 1000;

/// Writes the page and says whether it changed.
pub fn command(workspace: &Workspace) -> Result<i32> {
    let path = path(&workspace.root);
    let changed = files::write(&path, page().as_bytes(), None)?;
    let verdict = if changed { "written" } else { "up to date" };
    output::line(&format!("{} {verdict}: {} ops", path.display(), Op::ALL.len()))?;
    Ok(0)
}

/// Refuses a page that is not what the table says; returns the number of ops.
pub fn check(root: &Path) -> Result<usize> {
    let path = path(root);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}: run cargo xtask docs", path.display()))?;
    // A checkout on Windows may have other line ends.
    if text.replace("\r\n", "\n") != page() {
        bail!("{} is not what the op table says: run cargo xtask docs", path.display());
    }
    Ok(Op::ALL.len())
}

fn path(root: &Path) -> PathBuf {
    root.join("docs/op-reference.md")
}

/// The whole page: how an op is emitted, then a section for each class in the order of the table.
fn page() -> String {
    let mut text = opening();
    let mut classes: Vec<Class> = Vec::new();
    for op in Op::ALL {
        if !classes.contains(&op.row().class) {
            classes.push(op.row().class);
        }
    }
    for class in classes {
        let mut rows: Vec<Row> = Op::ALL.iter().map(|op| op.row()).filter(|row| row.class == class).collect();
        rows.sort_by_key(|row| row.code);
        text += &section(class, &rows);
    }
    text
}

fn opening() -> String {
    let dtypes: Vec<String> = DType::ALL.iter().map(|dtype| format!("{} `{dtype}`", *dtype as u8)).collect();
    format!(
        "# Op reference

<!-- Written by `cargo xtask docs` from plugin-api/ops/src/table.rs: change the rows there. -->

Every operation there is: {count} ops, op set {OP_SET_VERSION}. A plugin usually calls them through `Tensor`;
underneath, each call is one `emit(op number, operands, integers, floats)`, which checks the operands, infers dtype and
extents of the result and returns its id. Numbers are part of the ABI: they are never changed or used again.

Attributes are the two lists after the operands, in the order of the columns below; `name...` is any number of entries.
There are no defaults: what a row lists is required unless the row says what its absence means. Axes count from 0,
extents are at least 1, a tensor has at most {MAX_RANK} axes, and dtypes have numbers: {dtypes}.

An emit that does not fit does not stop the trace. It records an error with layer path, operands, dtypes, extents and
source line, and yields a *poisoned* id; what is emitted from that is poisoned too and records nothing more. After the
trace the host prints the first error and builds nothing.
",
        count = Op::ALL.len(),
        dtypes = dtypes.join(", "),
    )
}

fn section(class: Class, rows: &[Row]) -> String {
    let name = format!("{class:?}");
    let known = SECTIONS.iter().find(|section| section.0 == name);
    let mut text = format!("\n## {}\n\n", known.map_or(name.as_str(), |section| section.1));
    if let Some((_, _, paragraph)) = known {
        text += &format!("{paragraph}\n\n");
    }
    text += "| number | op | operands | integers | floats | what it does |\n|---:|---|---|---|---|---|\n";
    for row in rows {
        let (integers, floats) = row.attributes.split_once(';').unwrap_or((row.attributes, ""));
        let cells = [
            row.code.to_string(),
            format!("`{}`", row.name),
            operands(row.arity),
            code(integers),
            code(floats),
            escaped(row.doc),
        ];
        text += &format!("| {} |\n", cells.join(" | "));
    }
    text
}

/// `2`, `2 or 3`, `3 to 6`, `1 or more`.
fn operands((fewest, most): (usize, usize)) -> String {
    match most {
        most if most == fewest => fewest.to_string(),
        most if most >= MANY => format!("{fewest} or more"),
        most if most == fewest + 1 => format!("{fewest} or {most}"),
        most => format!("{fewest} to {most}"),
    }
}

/// A code span; nothing for nothing.
fn code(text: &str) -> String {
    let text = text.trim().replace('|', "\\|");
    if text.is_empty() { text } else { format!("`{text}`") }
}

/// Formulas as they are written: outside code spans, characters that Markdown would read are escaped. An operator
/// between spaces is none of them.
fn escaped(text: &str) -> String {
    let plain = |part: &str| {
        let escaped = part.replace('|', "\\|").replace('*', "\\*").replace('<', "\\<");
        escaped.replace(" \\* ", " * ").replace(" \\< ", " < ")
    };
    let parts = text.split('`').enumerate();
    let parts =
        parts.map(|(index, part)| if index % 2 == 0 { plain(part) } else { part.replace('|', "\\|") });
    parts.collect::<Vec<_>>().join("`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_what_the_table_says() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        check(root).unwrap();
    }

    #[test]
    fn a_page_that_differs_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let said = |root: &Path| format!("{:#}", check(root).unwrap_err());
        assert!(said(folder.path()).contains("run cargo xtask docs"));
        std::fs::create_dir(folder.path().join("docs")).unwrap();
        std::fs::write(path(folder.path()), page().replace("Every", "Each")).unwrap();
        assert!(said(folder.path()).contains("run cargo xtask docs"));
        std::fs::write(path(folder.path()), page().replace('\n', "\r\n")).unwrap();
        assert_eq!(check(folder.path()).unwrap(), Op::ALL.len());
    }

    #[test]
    fn every_op_has_its_line() {
        let page = page();
        for op in Op::ALL {
            assert!(page.contains(&format!("\n| {} | `{op}` |", op.row().code)), "{op}");
        }
    }

    #[test]
    fn cells_read_as_they_were_meant() {
        assert_eq!(
            [(1, 1), (2, 3), (3, 6), (1, 1_000_000)].map(operands),
            ["1", "2 or 3", "3 to 6", "1 or more"]
        );
        assert_eq!(escaped("a*b < |c| in `a*b|c`"), "a\\*b < \\|c\\| in `a*b\\|c`");
        assert_eq!(code(" "), "");
    }
}
