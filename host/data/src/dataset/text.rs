//! A text as token ids, and where its windows lie.
//!
//! In each epoch the training split is cut into blocks of T tokens from a random offset, and the blocks are
//! visited once each in a random order. Offset and order are functions of the seed and the epoch.

use std::ops::Range;

use crate::Split;
use crate::bijection::Bijection;
use crate::corpus::TextCorpus;
use crate::error::DataError;
use crate::rng::Stream;
use crate::tokenizer::Tokenizer;

/// Both splits of a corpus in token ids, and what is worth saying about it.
#[derive(Clone, Debug)]
pub struct Text {
    pub hash: String,
    pub train: Tokens,
    pub validation: Tokens,
    origin: String,
    files: usize,
    bytes: usize,
}

/// Token ids; bytes stay bytes, in a quarter of the memory.
#[derive(Clone, Debug)]
pub enum Tokens {
    Bytes(Vec<u8>),
    Ids(Vec<i32>),
}

impl Tokens {
    pub fn len(&self) -> usize {
        match self {
            Tokens::Bytes(bytes) => bytes.len(),
            Tokens::Ids(ids) => ids.len(),
        }
    }

    pub fn append(&self, range: Range<usize>, out: &mut Vec<i32>) {
        match self {
            Tokens::Bytes(bytes) => out.extend(bytes[range].iter().map(|&byte| i32::from(byte))),
            Tokens::Ids(ids) => out.extend_from_slice(&ids[range]),
        }
    }

    pub fn for_each_pair(&self, mut see: impl FnMut(i32, i32)) {
        match self {
            Tokens::Bytes(bytes) => {
                bytes.windows(2).for_each(|pair| see(i32::from(pair[0]), i32::from(pair[1])));
            }
            Tokens::Ids(ids) => ids.windows(2).for_each(|pair| see(pair[0], pair[1])),
        }
    }
}

impl Text {
    pub fn encode(corpus: &TextCorpus, tokenizer: &Tokenizer) -> Result<Text, DataError> {
        let cut = corpus.split(Split::Train).len();
        let encode = |split, before: usize| {
            let bytes = corpus.split(split);
            match tokenizer {
                Tokenizer::Byte => Ok(Tokens::Bytes(bytes.to_vec())),
                Tokenizer::Char { .. } => {
                    tokenizer.encode(bytes).map(Tokens::Ids).map_err(|error| match error {
                        DataError::NotUtf8 { offset, .. } => corpus.not_utf8(before + offset),
                        DataError::UnknownCharacter { character, offset } => {
                            DataError::UnknownCharacter { character, offset: before + offset }
                        }
                        other => other,
                    })
                }
            }
        };
        Ok(Text {
            hash: corpus.hash().to_string(),
            train: encode(Split::Train, 0)?,
            validation: encode(Split::Validation, cut)?,
            origin: corpus.origin().display().to_string(),
            files: corpus.file_count(),
            bytes: corpus.bytes().len(),
        })
    }

    pub fn describe(&self) -> String {
        format!(
            "{}: {} bytes in {} file{}, {} training and {} validation tokens",
            self.origin,
            self.bytes,
            self.files,
            if self.files == 1 { "" } else { "s" },
            self.train.len(),
            self.validation.len()
        )
    }

    pub fn check_window(&self, window: usize) -> Result<(), DataError> {
        for (split, tokens) in [(Split::Train, &self.train), (Split::Validation, &self.validation)] {
            if tokens.len() <= window {
                let (origin, tokens) = (self.origin.clone(), tokens.len());
                return Err(DataError::SplitTooShort { origin, split: split.name(), tokens, window });
            }
        }
        Ok(())
    }

    /// Where training window `index` begins. The split must be longer than `window`.
    pub fn train_start(&self, window: usize, seed: u64, index: u64) -> usize {
        let length = self.train.len();
        // A block less than fits from offset 0, so that every epoch has as many whatever its offset.
        let blocks = ((length - window) / window).max(1);
        let (epoch, block) = (index / blocks as u64, index % blocks as u64);
        let offsets = window.min(length - blocks * window);
        let offset = Stream::new(seed, "text/offset", epoch).below(offsets as u64) as usize;
        let order = Bijection::new(blocks as u64, seed, "text/order", epoch);
        offset + window * order.apply(block) as usize
    }
}
