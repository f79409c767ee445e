//! The one error type of this crate: every message says what is wrong, where, and what to do about it.

use std::path::PathBuf;

use thiserror::Error;

/// Why data could not be read, tokenised or cut into windows.
#[derive(Debug, Error)]
pub enum DataError {
    #[error("{}: no such file or folder; check the path (it is relative to the current folder)", path.display())]
    Missing { path: PathBuf },

    #[error("{}: cannot be read ({source}); check its permissions", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },

    #[error("{}: the folder holds no .txt, .md or .jsonl file; point at one that does", path.display())]
    NoTextFiles { path: PathBuf },

    #[error("{}: holds no text; point at a file that is not empty", path.display())]
    Empty { path: PathBuf },

    #[error(
        "{origin}: the {split} split has {tokens} tokens but a window of {window} needs {} (the window and \
         one target); use a shorter window or more text",
        window + 1
    )]
    SplitTooShort { origin: String, split: &'static str, tokens: usize, window: usize },

    #[error("a window must hold at least one token; set the context length to 1 or more")]
    EmptyWindow,

    #[error(
        "{origin}: byte {offset} is not valid UTF-8, which a char tokenizer needs; convert the text to \
         UTF-8 or use the byte tokenizer"
    )]
    NotUtf8 { origin: String, offset: usize },

    #[error(
        "{}, line {line}: {reason}; each line must be a JSON string or an object with a \"text\" string",
        path.display()
    )]
    BadJsonLine { path: PathBuf, line: usize, reason: String },

    #[error(
        "character {character:?} at byte {offset} is not in the tokenizer's vocabulary; remove it, use the \
         byte tokenizer, or build the vocabulary from text that has it"
    )]
    UnknownCharacter { character: char, offset: usize },

    #[error("tokenizer JSON cannot be used: {reason}; it must be what this program wrote")]
    BadTokenizer { reason: String },

    #[error("data.story.{option}: {reason}")]
    BadStoryOption { option: &'static str, reason: String },
}
