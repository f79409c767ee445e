//! Batches are functions of their arguments, and windows of a text are where they should be.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::story::StoryOptions;

fn text(content: &[u8], tokenizer: fn(&TextCorpus) -> Tokenizer) -> Result<Dataset, DataError> {
    let folder = tempfile::tempdir().unwrap(); // a test machine has a writable temporary folder
    let path = folder.path().join("text.txt");
    std::fs::write(&path, content).unwrap(); // into our own folder
    let corpus = TextCorpus::open(Path::new(&path))?;
    let tokenizer = tokenizer(&corpus);
    Dataset::text(&corpus, tokenizer)
}

fn bytes(_: &TextCorpus) -> Tokenizer {
    Tokenizer::Byte
}

fn chars(corpus: &TextCorpus) -> Tokenizer {
    corpus.char_tokenizer().unwrap() // the tests that use it have valid text
}

fn stories(window: usize, tokenizer: Tokenizer) -> Dataset {
    let corpus = StoryCorpus::new(StoryOptions::for_window(window)).unwrap(); // presets are valid
    Dataset::story(corpus, tokenizer).unwrap() // and both tokenizers hold the alphabet
}

#[test]
fn an_epoch_visits_each_block_once_in_a_new_order() {
    // Numbers as two digits of base 128, the second marked, so that a row tells where it begins.
    let content: Vec<u8> = (0..2000usize).flat_map(|i| [(i / 128) as u8, 128 | (i % 128) as u8]).collect();
    let dataset = text(&content, bytes).unwrap(); // bytes take anything
    let window = 10;
    let start = |row: &[i32]| {
        let at = usize::from(row[0] >= 128); // the first whole pair
        let pair = row[at] as usize * 128 + (row[at + 1] as usize & 127);
        2 * pair - at
    };
    let blocks = (3600 - window) / window;
    let mut orders = Vec::new();
    for epoch in 0..2 {
        let batch = dataset.train_batch(3, epoch, blocks, window).unwrap(); // long enough
        let starts: Vec<usize> = batch.tokens.chunks(window).map(start).collect();
        let distinct: BTreeSet<usize> = starts.iter().copied().collect();
        assert_eq!(distinct.len(), blocks);
        assert!(distinct.iter().all(|at| at % window == starts[0] % window && at + window < 3600));
        for (tokens, targets) in batch.tokens.chunks(window).zip(batch.targets.chunks(window)) {
            assert_eq!(tokens[1..], targets[..window - 1]);
        }
        orders.push(starts);
    }
    assert_ne!(orders[0], orders[1]);
}

#[test]
fn a_batch_is_the_rows_of_its_window_indices() {
    for dataset in
        [stories(32, Tokenizer::Byte), text(&b"what is said here is short. ".repeat(40), bytes).unwrap()]
    {
        let whole = dataset.train_batch(1, 0, 8, 32).unwrap(); // long enough
        let second = dataset.train_batch(1, 1, 4, 32).unwrap(); // as above
        assert_eq!(whole.tokens[4 * 32..], second.tokens);
        assert_eq!(whole.targets[4 * 32..], second.targets);
        assert_ne!(whole, dataset.train_batch(2, 0, 8, 32).unwrap()); // as above
    }
}

#[test]
fn validation_windows_are_sequential_blocks_with_their_bytes() {
    let content = "\u{e4}b\u{2603}d".repeat(100);
    let dataset = text(content.as_bytes(), chars).unwrap(); // valid text
    let windows = dataset.validation(4, usize::MAX).unwrap(); // long enough
    assert_eq!(windows.len(), 9); // 40 characters, less one that is no target
    let all: Vec<i32> = windows.iter().flat_map(|window| window.tokens.clone()).collect();
    assert_eq!(dataset.tokenizer().decode(&all), content[content.len() * 9 / 10..][..9 * 7]);
    assert!(windows.iter().all(|window| window.bytes == 7));
    assert_eq!(dataset.validation(4, 3).unwrap(), windows[..3]); // as above
}

#[test]
fn short_splits_are_named_with_both_numbers() {
    let dataset = text(&[b'a'; 100], bytes).unwrap(); // bytes take anything
    assert!(dataset.check_window(9).is_ok());
    let error = dataset.validation(10, 1).unwrap_err().to_string();
    assert!(error.contains("validation split has 10 tokens but a window of 10 needs 11"), "{error}");
    assert!(matches!(dataset.train_batch(0, 0, 1, 0), Err(DataError::EmptyWindow)));
    // The shortest text that has a window in both splits: its training split has exactly one.
    let dataset = text(&[b'a'; 20], bytes).unwrap(); // as above
    assert!(dataset.train_batch(0, 7, 3, 1).is_ok());
}

#[test]
fn a_tokenizer_of_another_text_is_refused_with_the_offset() {
    let other = |_: &TextCorpus| Tokenizer::char_of("ab");
    let error = text(b"ababababababababababababababc", other).unwrap_err();
    assert!(matches!(error, DataError::UnknownCharacter { character: 'c', offset: 28 }), "{error}");
    let error = text(b"abababababababababab\xFF", other).unwrap_err();
    let DataError::NotUtf8 { origin, offset: 20 } = &error else { unreachable!("of another kind: {error}") };
    assert!(origin.ends_with("text.txt"));
}

#[test]
fn story_charges_and_answers_belong_to_the_targets() {
    for tokenizer in [Tokenizer::Byte, StoryCorpus::char_tokenizer()] {
        let dataset = stories(256, tokenizer);
        let mut answers = 0;
        for window in dataset.validation(256, 20).unwrap() {
            // stories have windows of any length
            let story = window.story.unwrap(); // it is a story
            assert_eq!((window.tokens.len(), window.targets.len(), window.bytes), (256, 256, 256));
            assert_eq!(story.charges.len(), 256);
            let text = dataset.tokenizer().decode(&window.targets);
            for answer in story.answers {
                let before = &text[..answer.start];
                assert!(before.ends_with("? ") || before.ends_with("? At the "), "{before}");
                assert!(text[answer.end..].is_empty() || " .".contains(&text[answer.end..=answer.end]));
                answers += 1;
            }
        }
        assert!(answers > 20);
    }
}

#[test]
fn both_tokenizers_see_the_same_stories() {
    let (byte, char) = (stories(64, Tokenizer::Byte), stories(64, StoryCorpus::char_tokenizer()));
    let decoded = |dataset: &Dataset| {
        let batch = dataset.train_batch(5, 2, 3, 64).unwrap(); // stories have windows of any length
        dataset.tokenizer().decode(&batch.tokens)
    };
    assert_eq!(decoded(&byte), decoded(&char));
    let lacking = StoryCorpus::new(StoryOptions::for_window(64)).unwrap(); // a preset
    assert!(Dataset::story(lacking, Tokenizer::char_of("abc")).is_err());
}
