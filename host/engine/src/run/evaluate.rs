//! Validation: bits per byte, and on stories what each kind of byte costs beside its floor.

use data::{Question, Tag, Window};
use serde::Serialize;

use super::interval::{ratio, wilson};
use crate::Error;
use crate::machine::{Feed, Machine};
use crate::trace::{STEP_INDEX, Shape};

use super::text::{Place, windows_at};

/// Bits per byte of one kind of byte.
#[derive(Clone, Debug, Serialize)]
pub struct TagBits {
    pub tag: &'static str,
    /// Share of all bytes.
    pub share: f64,
    pub model: f64,
    /// 95 % interval of `model` over windows.
    pub interval: [f64; 2],
    /// The grammar's own price: no model does better, up to chance.
    pub floor: f64,
    /// The price for a reader who remembers neither names nor facts.
    pub memoryless: f64,
}

/// Questions of the stories, of one kind or all: an answer counts if every byte of it has the highest logit.
#[derive(Clone, Debug, Serialize)]
pub struct Answers {
    pub kind: &'static str,
    pub count: usize,
    pub right: usize,
    pub accuracy: f64,
    /// 95 % interval of `accuracy` (Wilson), as if answers did not depend on each other.
    pub interval: [f64; 2],
    /// Accuracy of guessing evenly among the candidates.
    pub chance: f64,
}

#[derive(Clone, Debug)]
pub struct Evaluation {
    /// Mean over tokens, nats.
    pub loss: f64,
    pub bits_per_byte: f64,
    /// 95 % interval of `bits_per_byte` over windows.
    pub interval: [f64; 2],
    pub windows: usize,
    /// Stories only.
    pub tags: Vec<TagBits>,
    /// All answers first, then those to each kind of question that came.
    pub answers: Vec<Answers>,
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
    Ok(sums.finish())
}

const TAGS: [(Tag, &str); 4] =
    [(Tag::Template, "template"), (Tag::Free, "free"), (Tag::NameTail, "name tail"), (Tag::Answer, "answer")];

const KINDS: [(&str, Option<Question>); 3] =
    [("all", None), ("who", Some(Question::Who)), ("where", Some(Question::Where))];

/// What the bytes of one kind cost in all windows.
#[derive(Default)]
struct Cost {
    /// (bits, bytes) of each window.
    model: Vec<(f64, f64)>,
    floor: f64,
    memoryless: f64,
}

#[derive(Default)]
struct Sums {
    nats: f64,
    tokens: usize,
    /// (bits, bytes) of each window.
    all: Vec<(f64, f64)>,
    tags: [Cost; TAGS.len()],
    /// Of each answer: what was asked, the chance of a guess, whether it was right.
    answers: Vec<(Question, f64, bool)>,
}

impl Sums {
    fn add(&mut self, window: &Window, losses: &[f32], correct: &[f32]) {
        let nats: f64 = losses.iter().map(|loss| f64::from(*loss)).sum();
        self.nats += nats;
        self.tokens += losses.len();
        self.all.push((nats / std::f64::consts::LN_2, window.bytes as f64));
        let Some(story) = &window.story else { return };
        for (cost, (tag, _)) in self.tags.iter_mut().zip(TAGS) {
            let (mut bits, mut bytes) = (0.0, 0.0);
            for (charge, loss) in story.charges.iter().zip(losses).filter(|(charge, _)| charge.tag == tag) {
                bits += f64::from(*loss) / std::f64::consts::LN_2;
                bytes += 1.0;
                cost.floor += charge.floor_bits;
                cost.memoryless += charge.memoryless_bits;
            }
            cost.model.push((bits, bytes));
        }
        for answer in &story.answers {
            let right = correct[answer.start..answer.end].iter().all(|hit| *hit == 1.0);
            self.answers.push((answer.question, answer.chance, right));
        }
    }

    fn finish(self) -> Evaluation {
        let (bits_per_byte, interval) = ratio(&self.all).unwrap_or((f64::NAN, [f64::NAN; 2]));
        let bytes = |model: &[(f64, f64)]| model.iter().map(|(_, bytes)| bytes).sum::<f64>();
        let tagged: f64 = self.tags.iter().map(|cost| bytes(&cost.model)).sum();
        let tags = TAGS.iter().zip(&self.tags).filter_map(|((_, tag), cost)| {
            let (model, interval) = ratio(&cost.model)?;
            let bytes = bytes(&cost.model);
            let (share, floor, memoryless) = (bytes / tagged, cost.floor / bytes, cost.memoryless / bytes);
            Some(TagBits { tag, share, model, interval, floor, memoryless })
        });
        let answers = KINDS.iter().filter_map(|(kind, asked)| {
            let of_kind =
                || self.answers.iter().filter(|(kind, ..)| asked.is_none_or(|asked| asked == *kind));
            let (count, right) = (of_kind().count(), of_kind().filter(|(.., right)| *right).count());
            let mean = |sum: f64| sum / count as f64;
            (count > 0).then(|| Answers {
                kind,
                count,
                right,
                accuracy: mean(right as f64),
                interval: wilson(right, count),
                chance: mean(of_kind().map(|(_, chance, _)| chance).sum()),
            })
        });
        Evaluation {
            loss: self.nats / self.tokens as f64,
            bits_per_byte,
            interval,
            windows: self.all.len(),
            tags: tags.collect(),
            answers: answers.collect(),
        }
    }
}
