//! What a count of tokens reaches, and where the story's floor lies: the scale a loss is read against.
//!
//! Both n-gram models are add-one smoothed over token ids and see the same windows as the model.

use crate::dataset::{Dataset, Window};
use crate::error::DataError;

/// The seed of the stories that the counts are taken from.
const COUNTING_SEED: u64 = 0;

/// Bits per byte of two simple models on validation windows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Baselines {
    pub unigram: f64,
    pub bigram: f64,
}

/// Bits per byte of the story grammar on validation windows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StoryFloor {
    /// With memory: no model does better, up to chance.
    pub floor: f64,
    /// Without memory of names and facts.
    pub memoryless: f64,
}

/// Counts of tokens and of pairs. A row of pair counts exists once its first token was seen.
struct Counts {
    single: Vec<u64>,
    pair: Vec<Option<Vec<u32>>>,
    total: u64,
}

impl Counts {
    fn new(vocab_size: usize) -> Counts {
        Counts { single: vec![0; vocab_size], pair: vec![None; vocab_size], total: 0 }
    }

    fn add(&mut self, token: i32, target: i32) {
        let vocab_size = self.single.len();
        self.single[target as usize] += 1;
        self.total += 1;
        self.pair[token as usize].get_or_insert_with(|| vec![0; vocab_size])[target as usize] += 1;
    }

    /// `(unigram, bigram)` bits of `targets`, each after its token.
    fn bits(&self, tokens: &[i32], targets: &[i32]) -> (f64, f64) {
        let vocab_size = self.single.len() as f64;
        // The number of times a token was followed by anything.
        let followed: Vec<u64> =
            (self.pair.iter()).map(|row| row.iter().flatten().map(|&count| u64::from(count)).sum()).collect();
        let (mut unigram, mut bigram) = (0.0, 0.0);
        for (&token, &target) in tokens.iter().zip(targets) {
            let single = self.single[target as usize] as f64 + 1.0;
            unigram += ((self.total as f64 + vocab_size) / single).log2();
            let pair = self.pair[token as usize].as_ref().map_or(0, |row| row[target as usize]);
            bigram += ((followed[token as usize] as f64 + vocab_size) / (f64::from(pair) + 1.0)).log2();
        }
        (unigram, bigram)
    }
}

/// Counts the training split (for stories: `story_windows` training windows of the validation windows'
/// length) and scores `validation`. An empty `validation` gives NaN.
///
/// Errors: those of [`Dataset::check_window`].
pub fn baselines(
    dataset: &Dataset,
    validation: &[Window],
    story_windows: usize,
) -> Result<Baselines, DataError> {
    let mut counts = Counts::new(dataset.vocab_size());
    let window = validation.first().map_or(1, |window| window.tokens.len());
    dataset.for_each_training_pair(COUNTING_SEED, window, story_windows, |token, target| {
        counts.add(token, target);
    })?;
    let tokens: Vec<i32> = validation.iter().flat_map(|window| &window.tokens).copied().collect();
    let targets: Vec<i32> = validation.iter().flat_map(|window| &window.targets).copied().collect();
    let bytes = validation.iter().map(|window| window.bytes).sum::<usize>() as f64;
    let (unigram, bigram) = counts.bits(&tokens, &targets);
    Ok(Baselines { unigram: unigram / bytes, bigram: bigram / bytes })
}

/// The grammar's own bits per byte on `validation`; none if it holds no story.
pub fn story_floor(validation: &[Window]) -> Option<StoryFloor> {
    let stories: Vec<_> = validation.iter().filter_map(|window| window.story.as_ref()).collect();
    let charges = || stories.iter().flat_map(|story| &story.charges);
    let bytes = charges().count() as f64;
    (bytes > 0.0).then(|| StoryFloor {
        floor: charges().map(|charge| charge.floor_bits).sum::<f64>() / bytes,
        memoryless: charges().map(|charge| charge.memoryless_bits).sum::<f64>() / bytes,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use super::*;
    use crate::{StoryCorpus, StoryOptions, TextCorpus, Tokenizer};

    /// 3.5968 bits/byte was computed apart from this code: add-one over 256 bytes, counted on the first
    /// nine tenths and scored on the last. (The 3.529 of the shared notes is another model: 0.1-smoothed, 257
    /// ids, and counted on the whole file, the scored tenth included.)
    #[test]
    fn a_byte_bigram_on_tinyshakespeare_agrees_with_an_independent_count() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/tinyshakespeare.txt");
        if !path.is_file() {
            println!("notice: {} is absent, nothing compared", path.display());
            return;
        }
        let dataset = Dataset::text(&TextCorpus::open(path).unwrap(), Tokenizer::Byte).unwrap(); // bytes
        let validation = dataset.validation(256, usize::MAX).unwrap(); // it is long
        let reached = baselines(&dataset, &validation, 0).unwrap(); // as above
        println!("tinyshakespeare: unigram {:.3}, bigram {:.3} bits/byte", reached.unigram, reached.bigram);
        assert!((reached.bigram - 3.5968).abs() < 0.001, "{reached:?}");
        assert!(reached.unigram > reached.bigram);
    }

    /// A model of `order` tokens with Witten-Bell smoothing down to the uniform: a stronger counter.
    fn ngram_bits(order: usize, train: &[Vec<i32>], test: &[Vec<i32>], vocab_size: usize) -> f64 {
        let mut counts: Vec<HashMap<&[i32], HashMap<i32, f64>>> = vec![HashMap::new(); order];
        for (row, at) in train.iter().flat_map(|row| (0..row.len()).map(move |at| (row, at))) {
            for (length, table) in counts.iter_mut().enumerate().take(at + 1) {
                *table.entry(&row[at - length..at]).or_default().entry(row[at]).or_default() += 1.0;
            }
        }
        let (mut bits, mut count) = (0.0, 0.0);
        for (row, at) in test.iter().flat_map(|row| (1..row.len()).map(move |at| (row, at))) {
            let mut probability = 1.0 / vocab_size as f64;
            for (length, table) in counts.iter().enumerate().take(at + 1) {
                if let Some(next) = table.get(&row[at - length..at]) {
                    let (total, kinds): (f64, f64) = (next.values().sum(), next.len() as f64);
                    let seen = next.get(&row[at]).copied().unwrap_or(0.0);
                    probability = (seen + kinds * probability) / (total + kinds);
                }
            }
            bits -= probability.log2();
            count += 1.0;
        }
        bits / count
    }

    #[test]
    fn no_counting_model_is_below_the_story_floor() {
        for window in [128, 256] {
            let corpus = StoryCorpus::new(StoryOptions::for_window(window)).unwrap(); // a preset
            let dataset = Dataset::story(corpus, StoryCorpus::char_tokenizer()).unwrap(); // its own tokenizer
            let validation = dataset.validation(window, 100).unwrap(); // stories have windows of any length
            let floor = story_floor(&validation).unwrap(); // it is a story
            let reached = baselines(&dataset, &validation, 2000).unwrap(); // as above
            let rows = |tokens: &[i32]| tokens.chunks(window).map(<[i32]>::to_vec).collect::<Vec<_>>();
            let train = rows(&dataset.train_batch(0, 0, 2000, window).unwrap().tokens); // as above
            let test: Vec<Vec<i32>> = validation.iter().map(|window| window.tokens.clone()).collect();
            let ngram = ngram_bits(12, &train, &test, dataset.vocab_size());
            println!("T {window}: {floor:?} {reached:?} 12-gram {ngram:.3}");
            assert!(reached.unigram > reached.bigram && reached.bigram > ngram);
            assert!(ngram > floor.memoryless && floor.memoryless > floor.floor);
        }
    }

    #[test]
    fn smoothed_counts_are_probabilities() {
        let mut counts = Counts::new(3);
        [(0, 1), (1, 1), (1, 2)].into_iter().for_each(|(token, target)| counts.add(token, target));
        for token in 0..3 {
            let total = |pick: fn((f64, f64)) -> f64| -> f64 {
                (0..3).map(|target| (-pick(counts.bits(&[token], &[target]))).exp2()).sum()
            };
            assert!((total(|bits| bits.0) - 1.0).abs() < 1e-12);
            assert!((total(|bits| bits.1) - 1.0).abs() < 1e-12);
        }
    }
}
