//! Generation at the end of a run: one token at a time from the last position's logits.

use data::{Stream, Tokenizer};

use crate::Error;
use crate::config::Sample;
use crate::machine::{Feed, Machine};
use crate::trace::{STEP_INDEX, Shape};

/// Text generated after `prompt`, without it. The model sees at most the last T tokens, from the start of a line where
/// one lies in reach: training windows start where texts do, and a context cut in mid-sentence is strange to it.
pub fn generate(
    machine: &mut Machine,
    shape: Shape,
    tokenizer: &Tokenizer,
    prompt: &[i32],
    settings: &Sample,
    (seed, steps_done): (u64, u64),
) -> Result<String, Error> {
    let plan = machine.plan("logits").ok_or_else(|| Error::said("there is no logits plan"))?;
    let mut stream = Stream::new(seed, "sample", 0);
    let newline = tokenizer.encode("\n").ok().and_then(|ids| ids.first().copied());
    let mut ids: Vec<i32> = prompt.to_vec();
    if ids.is_empty() {
        return Err(Error::said("a sample needs a prompt of at least one token; set sample.prompt"));
    }
    for _ in 0..settings.tokens {
        let seen = context(&ids, shape.window, newline);
        let mut tokens = vec![0; shape.window];
        tokens[..seen.len()].copy_from_slice(seen);
        let position = [seen.len() as i32 - 1];
        let outputs = machine.run(plan, |name| match name {
            "tokens" => Some(Feed::I32(&tokens)),
            "position" => Some(Feed::I32(&position)),
            STEP_INDEX => Some(Feed::Count(steps_done as i32)),
            _ => None,
        })?;
        ids.push(draw(&outputs[0].1, settings.temperature, &mut stream));
    }
    Ok(tokenizer.decode(&ids[prompt.len()..]))
}

/// The last `window` ids at most, from the first line that starts among them (unless nothing follows it yet).
fn context(ids: &[i32], window: usize, newline: Option<i32>) -> &[i32] {
    if ids.len() <= window {
        return ids;
    }
    let last = &ids[ids.len() - window..];
    let line = last.iter().position(|id| Some(*id) == newline).map_or(0, |end| end + 1);
    if line < last.len() { &last[line..] } else { last }
}

/// An id with probability softmax(logits / temperature); the highest at temperature 0.
fn draw(logits: &[f32], temperature: f64, stream: &mut Stream) -> i32 {
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

#[cfg(test)]
mod tests {
    use super::context;

    #[test]
    fn a_context_starts_at_a_line_where_it_can() {
        let newline = Some(0);
        assert_eq!(context(&[1, 2, 3], 4, newline), [1, 2, 3]);
        assert_eq!(context(&[9, 1, 2, 0, 3, 4], 5, newline), [3, 4]);
        assert_eq!(context(&[9, 1, 2, 3, 4, 0], 5, newline), [1, 2, 3, 4, 0]);
        assert_eq!(context(&[9, 1, 2, 3], 3, None), [1, 2, 3]);
    }
}
