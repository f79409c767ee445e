//! Validation: bits per byte, and on stories what each kind of byte costs beside its floor.

use data::{Tag, Window};

use crate::Error;
use crate::machine::{Feed, Machine};
use crate::trace::{STEP_INDEX, Shape};

use super::text::{Place, windows_at};

/// Bits per byte of one kind of byte.
#[derive(Clone, Debug)]
pub struct TagBits {
    pub tag: &'static str,
    /// Share of all bytes.
    pub share: f64,
    pub model: f64,
    /// The grammar's own price: no model does better, up to chance.
    pub floor: f64,
    /// The price for a reader who remembers neither names nor facts.
    pub memoryless: f64,
}

/// Questions of the stories: an answer counts if every byte of it has the highest logit.
#[derive(Clone, Copy, Debug)]
pub struct Answers {
    pub count: usize,
    pub accuracy: f64,
    pub chance: f64,
}

#[derive(Clone, Debug)]
pub struct Evaluation {
    /// Mean over tokens, nats.
    pub loss: f64,
    pub bits_per_byte: f64,
    /// Standard error of `bits_per_byte` over windows.
    pub error: f64,
    pub windows: usize,
    /// Stories only.
    pub tags: Vec<TagBits>,
    pub answers: Option<Answers>,
}

/// Evaluates `texts`, `shape.batch` at a time; a last short batch is filled up with its last text, not counted.
pub fn evaluate(
    machine: &mut Machine,
    shape: Shape,
    texts: &[Window],
    steps_done: u64,
) -> Result<Evaluation, Error> {
    let plan = machine.plan("eval").ok_or_else(|| Error::said("there is no eval plan"))?;
    let mut sums = Sums::default();
    for group in texts.chunks(shape.batch) {
        let row = |index: usize| &group[index.min(group.len() - 1)];
        let tokens: Vec<i32> = (0..shape.batch).flat_map(|index| &row(index).tokens).copied().collect();
        let targets: Vec<i32> = (0..shape.batch).flat_map(|index| &row(index).targets).copied().collect();
        let mut of_rows = vec![(Vec::new(), Vec::new()); shape.batch];
        for part in 0..shape.stream {
            let (tokens, targets) = (windows_at(&tokens, shape, part), windows_at(&targets, shape, part));
            let place = Place::new(shape.batch, part, shape.window);
            let outputs = machine.run(plan, |name| match name {
                "tokens" => Some(Feed::I32(&tokens)),
                "targets" => Some(Feed::I32(&targets)),
                STEP_INDEX => Some(Feed::Count(steps_done as i32)),
                _ => place.feed(name),
            })?;
            let output = |wanted: &str| {
                let found =
                    outputs.iter().find(|(name, _)| name == wanted).map(|(_, values)| values.as_slice());
                found.ok_or_else(|| Error::said(format!("the eval plan has no output {wanted}")))
            };
            let rows =
                output("token_losses")?.chunks(shape.window).zip(output("correct")?.chunks(shape.window));
            for ((losses, correct), (of_window, hits)) in of_rows.iter_mut().zip(rows) {
                losses.extend(of_window);
                correct.extend(hits);
            }
        }
        for (text, (losses, correct)) in group.iter().zip(&of_rows) {
            sums.add(text, losses, correct);
        }
    }
    Ok(sums.finish(texts.len()))
}

const TAGS: [(Tag, &str); 4] =
    [(Tag::Template, "template"), (Tag::Free, "free"), (Tag::NameTail, "name tail"), (Tag::Answer, "answer")];

#[derive(Default)]
struct Sums {
    nats: f64,
    tokens: usize,
    bytes: usize,
    /// Bits per byte of each window.
    per_window: Vec<f64>,
    /// By tag: bytes, model bits, floor bits, memoryless bits.
    tags: [(usize, f64, f64, f64); 4],
    answers: usize,
    right: usize,
    chance: f64,
}

impl Sums {
    fn add(&mut self, window: &Window, losses: &[f32], correct: &[f32]) {
        let nats: f64 = losses.iter().map(|loss| f64::from(*loss)).sum();
        self.nats += nats;
        self.tokens += losses.len();
        self.bytes += window.bytes;
        self.per_window.push(nats / std::f64::consts::LN_2 / window.bytes.max(1) as f64);
        let Some(story) = &window.story else { return };
        for (charge, loss) in story.charges.iter().zip(losses) {
            let index = TAGS.iter().position(|(tag, _)| *tag == charge.tag).unwrap_or(0);
            let (bytes, model, floor, memoryless) = &mut self.tags[index];
            *bytes += 1;
            *model += f64::from(*loss) / std::f64::consts::LN_2;
            *floor += charge.floor_bits;
            *memoryless += charge.memoryless_bits;
        }
        for answer in &story.answers {
            self.answers += 1;
            self.chance += answer.chance;
            self.right += usize::from(correct[answer.start..answer.end].iter().all(|hit| *hit == 1.0));
        }
    }

    fn finish(self, windows: usize) -> Evaluation {
        let mean = self.per_window.iter().sum::<f64>() / windows as f64;
        let spread: f64 = self.per_window.iter().map(|bits| (bits - mean).powi(2)).sum();
        let error = (spread / (windows.max(2) - 1) as f64 / windows as f64).sqrt();
        let tagged: usize = self.tags.iter().map(|tag| tag.0).sum();
        let tags = TAGS.iter().zip(self.tags).filter(|(_, sums)| sums.0 > 0).map(|((_, tag), sums)| {
            let bytes = sums.0 as f64;
            let share = bytes / tagged as f64;
            TagBits { tag, share, model: sums.1 / bytes, floor: sums.2 / bytes, memoryless: sums.3 / bytes }
        });
        let answers = (self.answers > 0).then(|| Answers {
            count: self.answers,
            accuracy: self.right as f64 / self.answers as f64,
            chance: self.chance / self.answers as f64,
        });
        Evaluation {
            loss: self.nats / self.tokens as f64,
            bits_per_byte: self.nats / std::f64::consts::LN_2 / self.bytes as f64,
            error,
            windows,
            tags: tags.collect(),
            answers,
        }
    }
}
