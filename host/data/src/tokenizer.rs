//! Tokenizers: bytes, or the distinct characters of a text.
//!
//! Both are exact in both directions on the text they were made for. A tokenizer travels with a
//! checkpoint as JSON, since token ids mean nothing without it.

use serde::{Deserialize, Serialize};

use crate::error::DataError;

/// Text to token ids and back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Tokenizer {
    /// One id per byte; the vocabulary is 256 whatever the text.
    Byte,
    /// One id per Unicode character: its place in the sorted vocabulary.
    Char { vocab: CharVocab },
}

/// Distinct characters in ascending order: the id of a character is its position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CharVocab(Vec<char>);

impl CharVocab {
    /// The distinct characters of `text`.
    pub fn of(text: &str) -> CharVocab {
        let distinct: std::collections::BTreeSet<char> = text.chars().collect();
        CharVocab(distinct.into_iter().collect())
    }

    /// The characters in the order of their ids.
    pub fn chars(&self) -> &[char] {
        &self.0
    }
}

impl From<CharVocab> for String {
    fn from(vocab: CharVocab) -> String {
        vocab.0.into_iter().collect()
    }
}

impl TryFrom<String> for CharVocab {
    type Error = String;

    fn try_from(text: String) -> Result<CharVocab, String> {
        let chars: Vec<char> = text.chars().collect();
        match chars.windows(2).find(|pair| pair[0] >= pair[1]) {
            Some(pair) => Err(format!("the vocabulary is out of order at {:?} {:?}", pair[0], pair[1])),
            None if chars.is_empty() => Err("the vocabulary is empty".into()),
            None => Ok(CharVocab(chars)),
        }
    }
}

impl Tokenizer {
    /// A char tokenizer over the distinct characters of `text`.
    pub fn char_of(text: &str) -> Tokenizer {
        Tokenizer::Char { vocab: CharVocab::of(text) }
    }

    /// Number of ids: ids are in `0..vocab_size()`.
    pub fn vocab_size(&self) -> usize {
        match self {
            Tokenizer::Byte => 256,
            Tokenizer::Char { vocab } => vocab.0.len(),
        }
    }

    /// Token ids of `text`.
    ///
    /// Errors (char only): [`DataError::UnknownCharacter`], or [`DataError::NotUtf8`] with the offset in `text`.
    pub fn encode(&self, text: impl AsRef<[u8]>) -> Result<Vec<i32>, DataError> {
        let bytes = text.as_ref();
        match self {
            Tokenizer::Byte => Ok(bytes.iter().map(|&byte| i32::from(byte)).collect()),
            Tokenizer::Char { vocab } => {
                let text = std::str::from_utf8(bytes).map_err(|error| DataError::NotUtf8 {
                    origin: "the text to encode".into(),
                    offset: error.valid_up_to(),
                })?;
                text.char_indices()
                    .map(|(offset, character)| match vocab.0.binary_search(&character) {
                        Ok(id) => Ok(id as i32),
                        Err(_) => Err(DataError::UnknownCharacter { character, offset }),
                    })
                    .collect()
            }
        }
    }

    /// The text of `ids`. Bytes that are not UTF-8 and ids outside the vocabulary become U+FFFD.
    pub fn decode(&self, ids: &[i32]) -> String {
        match self {
            Tokenizer::Byte => {
                // 0xFF never occurs in UTF-8, so an id that is no byte decodes to one U+FFFD.
                let bytes: Vec<u8> = ids.iter().map(|&id| u8::try_from(id).unwrap_or(0xFF)).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            Tokenizer::Char { vocab } => {
                ids.iter().map(|&id| vocab.get(id).unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
            }
        }
    }

    /// UTF-8 bytes that `ids` stand for: the denominator of bits per byte.
    pub fn byte_length(&self, ids: &[i32]) -> usize {
        match self {
            Tokenizer::Byte => ids.len(),
            Tokenizer::Char { vocab } => {
                ids.iter().map(|&id| vocab.get(id).map_or(0, |character| character.len_utf8())).sum()
            }
        }
    }

    /// The tokenizer as one line of JSON.
    pub fn to_json(&self) -> String {
        match self {
            Tokenizer::Byte => serde_json::json!({ "kind": "byte" }).to_string(),
            Tokenizer::Char { vocab } => {
                serde_json::json!({ "kind": "char", "vocab": String::from(vocab.clone()) }).to_string()
            }
        }
    }

    /// What [`Tokenizer::to_json`] wrote. Errors: [`DataError::BadTokenizer`].
    pub fn from_json(json: &str) -> Result<Tokenizer, DataError> {
        serde_json::from_str(json).map_err(|error| DataError::BadTokenizer { reason: error.to_string() })
    }
}

impl CharVocab {
    fn get(&self, id: i32) -> Option<char> {
        usize::try_from(id).ok().and_then(|id| self.0.get(id)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_return_the_text_they_were_given() {
        let text = "na\u{ef}ve \u{2603}\n";
        for tokenizer in [Tokenizer::Byte, Tokenizer::char_of(text)] {
            let ids = tokenizer.encode(text).unwrap(); // the vocabulary is the text's own
            assert_eq!(tokenizer.decode(&ids), text);
            assert_eq!(tokenizer.byte_length(&ids), text.len());
            assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
            let copy = Tokenizer::from_json(&tokenizer.to_json()).unwrap(); // we wrote it
            assert_eq!(copy, tokenizer);
        }
        assert_eq!(Tokenizer::char_of("banana").encode("nab").unwrap(), [2, 0, 1]); // sorted: a b n
    }

    #[test]
    fn an_unknown_character_is_named_with_its_byte_offset() {
        let error = Tokenizer::char_of("a\u{ef}").encode("a\u{ef}z").unwrap_err();
        assert!(matches!(error, DataError::UnknownCharacter { character: 'z', offset: 3 }), "{error}");
        let error = Tokenizer::char_of("ab").encode(b"ab\xFF").unwrap_err();
        assert!(matches!(error, DataError::NotUtf8 { offset: 2, .. }), "{error}");
    }

    #[test]
    fn decoding_never_fails() {
        assert_eq!(Tokenizer::Byte.decode(&[97, 300, -1, 98]), "a\u{fffd}\u{fffd}b");
        assert_eq!(Tokenizer::char_of("ab").decode(&[0, 9, 1]), "a\u{fffd}b");
    }

    #[test]
    fn a_tokenizer_file_that_was_changed_by_hand_is_refused() {
        for json in
            ["{}", r#"{"kind":"word"}"#, r#"{"kind":"char","vocab":"ba"}"#, r#"{"kind":"char","vocab":""}"#]
        {
            assert!(matches!(Tokenizer::from_json(json), Err(DataError::BadTokenizer { .. })), "{json}");
        }
    }
}
