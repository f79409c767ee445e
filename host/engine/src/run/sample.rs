//! Generation at the end of a run: one token at a time, in a session of one row.

use data::{Stream, Tokenizer};

use crate::Error;
use crate::config::{Sample, WriteOn};
use crate::session::{Mode, Session};

/// Text generated after `prompt`, without it. Memories learn from what `settings.write_on` says.
pub fn generate(
    session: &mut Session,
    tokenizer: &Tokenizer,
    prompt: &[i32],
    settings: &Sample,
    seed: u64,
) -> Result<String, Error> {
    if prompt.is_empty() {
        return Err(Error::said("a sample needs a prompt of at least one token; set sample.prompt"));
    }
    let mode = |learn: bool| if learn { Mode::Learn } else { Mode::Read };
    let of_prompt = mode(settings.write_on != WriteOn::Off);
    let of_sample = mode(settings.write_on == WriteOn::All);
    let mut stream = Stream::new(seed, "sample", 0);
    let mut ids = Vec::with_capacity(settings.tokens);
    session.read(&[prompt.to_vec()], of_prompt)?;
    while let Some(logits) = session.logits(0) {
        ids.push(draw(logits, settings.temperature, &mut stream));
        if ids.len() >= settings.tokens {
            break;
        }
        session.read(&[vec![ids[ids.len() - 1]]], of_sample)?;
    }
    Ok(tokenizer.decode(&ids))
}

/// An id with probability softmax(logits / temperature); the highest at temperature 0.
pub(crate) fn draw(logits: &[f32], temperature: f64, stream: &mut Stream) -> i32 {
    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]).then(b.cmp(a))).unwrap_or(0);
    if temperature <= 0.0 {
        return best as i32;
    }
    let peak = f64::from(logits[best]);
    let weights: Vec<f64> =
        logits.iter().map(|logit| ((f64::from(*logit) - peak) / temperature).exp()).collect();
    let mut left = stream.uniform() * weights.iter().sum::<f64>();
    for (id, weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return id as i32;
        }
    }
    best as i32
}
