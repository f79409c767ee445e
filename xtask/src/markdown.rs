//! Finding the links of a Markdown text: enough of CommonMark to skip code, no more.
//!
//! Inline links, images and reference definitions are found line by line. Fenced and indented code blocks and
//! code spans are skipped, since `table[i](x)` in an example is no link.

/// A link and the line, counted from 1, on which its target stands.
#[derive(Debug, PartialEq)]
pub struct Link {
    pub line: usize,
    pub target: String,
}

/// Every link of the text, in order.
pub fn links(text: &str) -> Vec<Link> {
    let mut found = Vec::new();
    let mut blocks = Blocks::default();
    for (index, line) in text.lines().enumerate() {
        if !blocks.is_code(line) {
            found.extend(
                targets(&without_code_spans(line)).into_iter().map(|target| Link { line: index + 1, target }),
            );
        }
    }
    found
}

/// What the lines so far say about the next one.
#[derive(Default)]
struct Blocks {
    /// The fence that opened the code block we are in.
    fence: Option<String>,
    /// The last line at the margin began a list item, so that indented lines belong to it.
    in_list: bool,
    /// The last line was text, so that an indented line only continues its paragraph.
    after_text: bool,
}

impl Blocks {
    fn is_code(&mut self, line: &str) -> bool {
        let trimmed = line.trim_start();
        let fence = fence(trimmed);
        if let Some(open) = &self.fence {
            let closes = fence.is_some_and(|fence| {
                fence.starts_with(open.as_str()) && fence.len() == trimmed.trim_end().len()
            });
            if closes {
                self.fence = None;
            }
            return true;
        }
        if let Some(fence) = fence {
            self.fence = Some(fence.to_owned());
            self.after_text = false;
            return true;
        }
        if trimmed.is_empty() {
            self.after_text = false;
            return false;
        }
        let indent = line.len() - trimmed.len();
        if indent == 0 {
            self.in_list = is_list_item(trimmed);
        }
        let indented = indent >= 4 || line.starts_with('\t');
        let code = indented && !self.in_list && !self.after_text;
        self.after_text = !code;
        code
    }
}

/// The run of three or more backticks or tildes that the line begins with.
fn fence(trimmed: &str) -> Option<&str> {
    let mark = trimmed.chars().next().filter(|mark| ['`', '~'].contains(mark))?;
    let length = trimmed.chars().take_while(|character| *character == mark).count();
    // A line such as ```code``` is a code span in a paragraph, not a fence.
    (length >= 3 && !(mark == '`' && trimmed[length..].contains('`'))).then(|| &trimmed[..length])
}

fn is_list_item(line: &str) -> bool {
    let after_number = line.trim_start_matches(|character: char| character.is_ascii_digit());
    let numbered =
        after_number.len() < line.len() && (after_number.starts_with(". ") || after_number.starts_with(") "));
    numbered || ["- ", "* ", "+ "].iter().any(|bullet| line.starts_with(bullet))
}

/// The line with its code spans taken out; a run of backticks ends at the next run of the same length.
fn without_code_spans(line: &str) -> String {
    let mut kept = String::new();
    let mut rest = line;
    while let Some(start) = rest.find('`') {
        kept.push_str(&rest[..start]);
        let length = run(&rest[start..]);
        let inside = &rest[start + length..];
        rest = match closing(inside, length) {
            Some(end) => &inside[end + length..],
            None => inside,
        };
    }
    kept + rest
}

/// How many backticks the text begins with.
fn run(text: &str) -> usize {
    text.len() - text.trim_start_matches('`').len()
}

/// Where in `text` a run of exactly `length` backticks begins.
fn closing(text: &str, length: usize) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = text[at..].find('`') {
        at += found;
        let here = run(&text[at..]);
        if here == length {
            return Some(at);
        }
        at += here;
    }
    None
}

fn targets(line: &str) -> Vec<String> {
    let definition = line.trim_start().strip_prefix('[').and_then(|rest| rest.split_once("]: "));
    if let Some((label, target)) = definition
        && !label.contains(']')
        && !label.starts_with('^')
    {
        return vec![without_title(target).to_owned()];
    }
    let mut found = Vec::new();
    let mut rest = line;
    while let Some(start) = rest.find("](") {
        rest = &rest[start + 2..];
        let end = end_of_target(rest);
        found.push(without_title(&rest[..end]).to_owned());
        rest = &rest[end..];
    }
    found
}

/// Where the parenthesis closes that was opened just before `text`.
fn end_of_target(text: &str) -> usize {
    let mut depth = 0;
    for (index, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' if depth == 0 => return index,
            ')' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

/// `<path with spaces>` or the first word; what follows is a title.
fn without_title(target: &str) -> &str {
    let target = target.trim();
    match target.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        Some((inside, _)) => inside,
        None => target.split_whitespace().next().unwrap_or(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        links(text).into_iter().map(|link| link.target).collect()
    }

    #[test]
    fn every_form_of_link_is_found() {
        let text =
            "See [a](a.md), ![i](img/b.png \"title\") and [c](<c d.md>).\n\n[e]: e.md#top\n[w](x_(y).md)";
        assert_eq!(found(text), ["a.md", "img/b.png", "c d.md", "e.md#top", "x_(y).md"]);
        assert_eq!(links(text)[3], Link { line: 3, target: "e.md#top".into() });
    }

    #[test]
    fn code_holds_no_links() {
        let fenced = "````\n[a](a)\n```\n[b](b)\n````\n[c](c)";
        assert_eq!(found(fenced), ["c"]);
        assert_eq!(found("~~~text\n[a](a)\n~~~\n"), Vec::<String>::new());
        assert_eq!(found("call `t[i](x)` or ``t`[i](x)`` then [b](b)"), ["b"]);
        assert_eq!(found("Text:\n\n    t[i](x)\n\nmore [b](b)"), ["b"]);
    }

    #[test]
    fn indented_text_of_a_list_or_paragraph_is_no_code() {
        assert_eq!(found("- item\n\n    [a](a)\n"), ["a"]);
        assert_eq!(found("1. item\n\n    [a](a)\n"), ["a"]);
        assert_eq!(found("a paragraph\n      [a](a)"), ["a"]);
    }

    #[test]
    fn odd_text_ends_well() {
        for text in ["[a](", "](", "`", "``` `", "[", "[]: ", "[^1]: note", "a ` b [c](c)", "[\u{e9}](\u{e9}"]
        {
            let _ = links(text);
        }
        assert_eq!(found("a ` b [c](c)"), ["c"]);
        assert_eq!(found("[^1]: a note"), Vec::<String>::new());
    }
}
