//! Prints sample stories and their scale: `cargo run --release -p data --example stories -- 256 0 3`
//! (window, first window's index, number of windows).

use std::collections::BTreeMap;

use data::{DataError, Dataset, Split, StoryCorpus, StoryOptions, Tokenizer, baselines, story_floor};

fn main() -> Result<(), DataError> {
    let mut arguments = std::env::args().skip(1).map_while(|argument| argument.parse().ok());
    let window = arguments.next().unwrap_or(256);
    let first = arguments.next().unwrap_or(0);
    let count = arguments.next().unwrap_or(3);
    let corpus = StoryCorpus::new(StoryOptions::for_window(window))?;
    for index in first..first + count {
        let told = corpus.window(Split::Train, 0, index as u64, window);
        println!("--- window {index}\n{}", String::from_utf8_lossy(&told.bytes));
    }

    let dataset = Dataset::story(corpus, Tokenizer::Byte)?;
    let validation = dataset.validation(window, 1000)?;
    println!("---\n{}", dataset.describe());
    println!("{:?}\n{:?}", story_floor(&validation), baselines(&dataset, &validation, 4000)?);
    let mut tags: BTreeMap<String, (f64, f64, f64)> = BTreeMap::new();
    let stories: Vec<_> = validation.iter().filter_map(|window| window.story.as_ref()).collect();
    for charge in stories.iter().flat_map(|story| &story.charges) {
        let sums = tags.entry(format!("{:?}", charge.tag)).or_default();
        *sums = (sums.0 + 1.0, sums.1 + charge.floor_bits, sums.2 + charge.memoryless_bits);
    }
    let bytes: f64 = tags.values().map(|sums| sums.0).sum();
    for (tag, (count, floor, memoryless)) in tags {
        println!(
            "{tag}: {:.1} % of bytes; {:.4} bits/byte of all under the floor, {:.4} without memory",
            100.0 * count / bytes,
            floor / bytes,
            memoryless / bytes
        );
    }
    let answers: usize = stories.iter().map(|story| story.answers.len()).sum();
    let chance: f64 = stories.iter().flat_map(|story| &story.answers).map(|answer| answer.chance).sum();
    println!(
        "{:.2} answers a window, chance {:.3}",
        answers as f64 / stories.len() as f64,
        chance / answers as f64
    );
    Ok(())
}
