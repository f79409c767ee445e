//! Text corpora: a file, a folder or JSON lines, read whole, in an order that does not depend on the disk.
//!
//! Documents (a file, or a line of JSON) are joined by a newline. The first nine tenths are for training,
//! the rest for validation: contiguous and never shuffled, so that no validation sentence is trained on.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::Split;
use crate::error::DataError;
use crate::tokenizer::Tokenizer;

/// File name extensions that a folder is searched for.
const EXTENSIONS: [&str; 3] = ["txt", "md", "jsonl"];

/// All text of a file or folder.
#[derive(Clone, Debug)]
pub struct TextCorpus {
    origin: PathBuf,
    bytes: Vec<u8>,
    /// Each file, with the position in `bytes` where it begins.
    files: Vec<(PathBuf, usize)>,
    hash: String,
}

impl TextCorpus {
    /// Reads a text file, a `.jsonl` file (one string, or object with a "text" string, per line that is not
    /// blank), or every .txt, .md and .jsonl file below a folder, sorted by path.
    ///
    /// Errors: [`DataError::Missing`], [`DataError::Unreadable`], [`DataError::NoTextFiles`],
    /// [`DataError::Empty`], [`DataError::BadJsonLine`].
    pub fn open(path: impl AsRef<Path>) -> Result<TextCorpus, DataError> {
        let origin = path.as_ref().to_path_buf();
        let metadata = std::fs::metadata(&origin).map_err(|source| io_error(&origin, source))?;
        let mut paths = Vec::new();
        if metadata.is_dir() {
            collect(&origin, &mut paths)?;
            paths.sort();
            if paths.is_empty() {
                return Err(DataError::NoTextFiles { path: origin });
            }
        } else {
            paths.push(origin.clone());
        }
        let mut bytes = Vec::new();
        let mut files = Vec::new();
        for path in paths {
            let content = std::fs::read(&path).map_err(|source| io_error(&path, source))?;
            let documents =
                if has_extension(&path, "jsonl") { json_lines(&path, &content)? } else { vec![content] };
            let mut begins = None;
            for document in documents.iter().filter(|document| !document.is_empty()) {
                if !bytes.is_empty() {
                    bytes.push(b'\n');
                }
                begins.get_or_insert(bytes.len());
                bytes.extend_from_slice(document);
            }
            files.extend(begins.map(|start| (path, start)));
        }
        if bytes.is_empty() {
            return Err(DataError::Empty { path: origin });
        }
        let hash = blake3::hash(&bytes).to_hex().to_string();
        Ok(TextCorpus { origin, bytes, files, hash })
    }

    /// The path the corpus was opened with.
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// The joined documents.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of files that hold text.
    pub fn file_count(&self) -> usize {
        self.files.len()
    }

    /// blake3 of the joined documents, in hexadecimal: the corpus's name in a run record.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The bytes of one split. The cut is after nine tenths, moved on to the next character's start.
    pub fn split(&self, split: Split) -> &[u8] {
        let mut cut = self.bytes.len() * 9 / 10;
        // In UTF-8 a character has at most three continuation bytes; more of them in a row are not text.
        let continues = |byte: &&u8| **byte & 0b1100_0000 == 0b1000_0000;
        cut += self.bytes[cut..].iter().take(3).take_while(continues).count();
        match split {
            Split::Train => &self.bytes[..cut],
            Split::Validation => &self.bytes[cut..],
        }
    }

    /// A char tokenizer over every character of the corpus, both splits.
    ///
    /// Errors: [`DataError::NotUtf8`], naming the file and the byte in it.
    pub fn char_tokenizer(&self) -> Result<Tokenizer, DataError> {
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => Ok(Tokenizer::char_of(text)),
            Err(error) => Err(self.not_utf8(error.valid_up_to())),
        }
    }

    /// Which file the invalid byte at `position` of the joined text is in, and where in that file.
    pub(crate) fn not_utf8(&self, position: usize) -> DataError {
        let after = self.files.partition_point(|(_, start)| *start <= position);
        let (path, start) = after.checked_sub(1).map_or((&self.origin, 0), |at| {
            let (path, start) = &self.files[at];
            (path, *start)
        });
        DataError::NotUtf8 { origin: path.display().to_string(), offset: position - start }
    }
}

fn io_error(path: &Path, source: std::io::Error) -> DataError {
    let path = path.to_path_buf();
    match source.kind() {
        ErrorKind::NotFound => DataError::Missing { path },
        _ => DataError::Unreadable { path, source },
    }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

/// Text files below `folder`. Links to folders are not followed: they can form a circle.
fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), DataError> {
    for entry in std::fs::read_dir(folder).map_err(|source| io_error(folder, source))? {
        let entry = entry.map_err(|source| io_error(folder, source))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(|source| io_error(&path, source))?;
        if kind.is_dir() {
            collect(&path, found)?;
        } else if EXTENSIONS.iter().any(|extension| has_extension(&path, extension)) && path.is_file() {
            found.push(path);
        }
    }
    Ok(())
}

fn json_lines(path: &Path, content: &[u8]) -> Result<Vec<Vec<u8>>, DataError> {
    let mut documents = Vec::new();
    for (index, line) in content.split(|&byte| byte == b'\n').enumerate() {
        let bad =
            |reason: String| DataError::BadJsonLine { path: path.to_path_buf(), line: index + 1, reason };
        if line.trim_ascii().is_empty() {
            continue;
        }
        let value: serde_json::Value =
            serde_json::from_slice(line).map_err(|error| bad(format!("not JSON ({error})")))?;
        let text = match &value {
            serde_json::Value::Object(fields) => fields.get("text"),
            other => Some(other),
        };
        match text {
            Some(serde_json::Value::String(text)) => documents.push(text.clone().into_bytes()),
            Some(_) => return Err(bad("the text is not a string".into())),
            None => return Err(bad("the object has no \"text\" field".into())),
        }
    }
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap(); // a test machine has a writable temporary folder
        for (name, content) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap(); // the path has a file name, so a parent
            fs::write(path, content).unwrap(); // into our own folder
        }
        folder
    }

    #[test]
    fn a_folder_is_read_in_path_order_with_documents_joined_by_newlines() {
        let lines = b"\"one\"\n\n  \n{\"id\": 1, \"text\": \"tw\\u00f6\"}\r\n";
        let files: [(&str, &[u8]); 5] = [
            ("b.txt", b"second"),
            ("a/z.MD", b"first"),
            ("c.jsonl", lines),
            ("d.txt", b""),
            ("e.png", b"no"),
        ];
        let folder = folder(&files);
        let corpus = TextCorpus::open(folder.path()).unwrap(); // all of it is well-formed
        assert_eq!(corpus.bytes(), "first\nsecond\none\ntw\u{f6}".as_bytes());
        assert_eq!(corpus.file_count(), 3);
        let copy = TextCorpus::open(folder.path()).unwrap(); // as above
        assert_eq!(corpus.hash(), copy.hash());
        let one = TextCorpus::open(folder.path().join("b.txt")).unwrap(); // as above
        assert_eq!(one.bytes(), b"second");
        assert_ne!(one.hash(), corpus.hash());
    }

    #[test]
    fn the_split_is_contiguous_and_at_a_character() {
        let folder = folder(&[("a.txt", "0123456789abcdefgh\u{2603}".as_bytes())]);
        let corpus = TextCorpus::open(folder.path()).unwrap(); // well-formed
        // Nine tenths of 21 bytes are 18: the snowman starts there.
        assert_eq!(corpus.split(Split::Train), b"0123456789abcdefgh");
        assert_eq!(corpus.split(Split::Validation), "\u{2603}".as_bytes());
        let folder = self::folder(&[("a.txt", "0123456789abcdefg\u{2603}.".as_bytes())]);
        let corpus = TextCorpus::open(folder.path()).unwrap(); // well-formed
        assert_eq!(corpus.split(Split::Validation), b".");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let files: [(&str, &[u8]); 3] =
            [("empty.txt", b""), ("bad.jsonl", b"\"ok\"\n\n{\"txt\": 1}\n"), ("none/a.png", b"x")];
        let folder = folder(&files);
        let open = |name: &str| TextCorpus::open(folder.path().join(name)).unwrap_err();
        assert!(matches!(open("absent"), DataError::Missing { .. }));
        assert!(matches!(open("empty.txt"), DataError::Empty { .. }));
        assert!(matches!(open("none"), DataError::NoTextFiles { .. }));
        let error = open("bad.jsonl");
        assert!(matches!(error, DataError::BadJsonLine { line: 3, .. }));
        assert!(error.to_string().contains("bad.jsonl, line 3: the object has no \"text\" field"), "{error}");
    }

    #[test]
    fn invalid_utf8_is_found_in_its_file() {
        let folder = folder(&[("a.txt", b"fine"), ("b.txt", b"not\xFF")]);
        let corpus = TextCorpus::open(folder.path()).unwrap(); // bytes are bytes
        let error = corpus.char_tokenizer().unwrap_err();
        let DataError::NotUtf8 { origin, offset } = &error else {
            unreachable!("it is about UTF-8: {error}")
        };
        assert!(origin.ends_with("b.txt"));
        assert_eq!(*offset, 3);
    }
}
