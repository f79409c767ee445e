//! One row of a session: its context, and how far of it attention sees and memories have learned.
//!
//! ```text
//! tokens   | learned or passed over  | pending                  |
//!          0                         chunk start                end
//!          | cached: attention sees them            | unread    |
//! ```

/// What stays of a full context in which no text begins; the rest is room for what comes.
const STAYS: (usize, usize) = (3, 4);

/// Some tokens of a context.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    pub start: usize,
    pub count: usize,
}

/// What a token costs after all that its row has read before it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// Nats.
    pub loss: f64,
    /// Whether no other token is more probable.
    pub is_best: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Row {
    /// The context, each token with whether it is to be learned.
    tokens: Vec<(i32, bool)>,
    /// Tokens whose keys and values are in place.
    cached: usize,
    /// Tokens whose price is told.
    priced: usize,
    /// Logits after the last token that was read.
    logits: Option<Vec<f32>>,
    /// Prices since they were last taken.
    prices: Vec<Price>,
    /// Where the tokens begin that memories have not learned from.
    chunk_start: usize,
    /// Tokens that memories have learned from, of this and earlier contexts, since a period began.
    learned: usize,
}

impl Row {
    pub fn push(&mut self, tokens: &[i32], learn: bool) {
        // The first token of a row has no price; that of a token after the last one read is known from its logits.
        if let Some(first) = tokens.first() {
            self.prices.extend(self.logits.take().map(|logits| price(&logits, *first)));
            self.priced = self.priced.max(self.tokens.len() + 1);
        }
        self.tokens.extend(tokens.iter().map(|token| (*token, learn)));
    }

    /// Prices told since they were last taken: of each token in its turn, but for the first of a row.
    pub fn take_prices(&mut self) -> Vec<Price> {
        std::mem::take(&mut self.prices)
    }

    /// Logits after the last token.
    pub fn logits(&self) -> Option<&Vec<f32>> {
        self.logits.as_ref()
    }

    /// Tokens of a stretch, and the token after each where it is known.
    pub fn stretch(&self, Stretch { start, count }: Stretch) -> Vec<(i32, Option<i32>)> {
        let token = |at: usize| self.tokens.get(at).map(|(token, _)| *token);
        (start..start + count).filter_map(|at| Some((token(at)?, token(at + 1)))).collect()
    }

    /// Takes prices of what follows each token of a stretch from `start` on: of tokens that have none yet.
    pub fn price(&mut self, start: usize, prices: &[Price]) {
        for (at, price) in (start + 1..).zip(prices) {
            if at == self.priced && at < self.tokens.len() {
                self.prices.push(*price);
                self.priced += 1;
            }
        }
    }

    /// Whether the first `count` pending tokens have targets that are not to be learned and whose price is open.
    pub fn is_open(&self, count: usize) -> bool {
        let targets = self.chunk_start + 1..(self.chunk_start + count + 1).min(self.tokens.len());
        targets.into_iter().any(|at| at >= self.priced && !self.tokens[at].1)
    }

    /// Tokens of the context.
    pub fn length(&self) -> usize {
        self.tokens.len()
    }

    /// Makes room for `width` more tokens in a context of `capacity`. Where there is none, the context starts anew with
    /// its last tokens, from the first that follows `boundary`; attention has to read them again.
    pub fn make_room(&mut self, capacity: usize, width: usize, boundary: Option<i32>) {
        let length = self.tokens.len();
        let Some(least) = (length + width).checked_sub(capacity).filter(|least| *least > 0) else { return };
        let least = least.min(length);
        let begins = |at: &usize| boundary.is_some() && self.tokens[at - 1].0 == boundary.unwrap_or_default();
        let gone = (least..length).find(begins).unwrap_or(least.max(length - length * STAYS.0 / STAYS.1));
        self.tokens.drain(..gone);
        self.cached = 0;
        self.priced = self.priced.saturating_sub(gone);
        self.chunk_start = self.chunk_start.saturating_sub(gone);
    }

    pub fn cached(&self) -> usize {
        self.cached
    }

    /// Attention sees a stretch too; logits are those after its last token.
    pub fn read(&mut self, Stretch { start, count }: Stretch, logits: &[f32]) {
        self.cached = start + count;
        self.logits = (self.cached == self.tokens.len()).then(|| logits.to_vec());
    }

    pub fn chunk_start(&self) -> usize {
        self.chunk_start
    }

    pub fn pending(&self) -> usize {
        self.tokens.len() - self.chunk_start
    }

    /// The first `count` pending tokens, and the token that each is to predict: None where it is unknown or not to be
    /// learned.
    pub fn lesson(&self, count: usize) -> Vec<(i32, Option<i32>)> {
        let pending = &self.tokens[self.chunk_start..];
        let target = |at: usize| pending.get(at + 1).filter(|(_, learn)| *learn).map(|(token, _)| *token);
        (0..count.min(pending.len())).map(|at| (pending[at].0, target(at))).collect()
    }

    /// Whether there is something to learn in the first `count` pending tokens.
    pub fn teaches(&self, count: usize) -> bool {
        self.lesson(count).iter().any(|(_, target)| target.is_some())
    }

    /// Memories have learned from the first `count` pending tokens, which attention sees now too.
    pub fn learn(&mut self, count: usize) {
        self.pass_over(count);
        self.learned += count;
        self.cached = self.cached.max(self.chunk_start);
    }

    /// The first `count` pending tokens are nothing to learn.
    pub fn pass_over(&mut self, count: usize) {
        self.chunk_start += count;
    }

    pub fn learned(&self) -> usize {
        self.learned
    }

    /// Memories have nothing pending: their periods begin here.
    pub fn start_period(&mut self) {
        self.learned = 0;
    }
}

fn price(logits: &[f32], token: i32) -> Price {
    let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - peak).exp()).sum();
    let of_token = usize::try_from(token).ok().and_then(|token| logits.get(token)).copied();
    let of_token = of_token.unwrap_or(f32::NEG_INFINITY);
    Price { loss: sum.ln() - f64::from(of_token - peak), is_best: of_token == peak }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tokens: &[i32]) -> Row {
        let mut row = Row::default();
        row.push(tokens, true);
        row.read(Stretch { start: 0, count: tokens.len() }, &[0.0; 16]);
        row
    }

    fn tokens(row: &Row) -> Vec<i32> {
        row.tokens.iter().map(|(token, _)| *token).collect()
    }

    #[test]
    fn a_full_context_goes_on_from_where_a_text_begins() {
        let mut full = row(&[1, 2, 0, 3, 4, 5]);
        full.make_room(8, 2, Some(0));
        assert_eq!((full.length(), full.cached()), (6, 6), "there is room");
        full.make_room(7, 2, Some(0));
        assert_eq!((tokens(&full), full.cached()), (vec![3, 4, 5], 0));
        let mut unbroken = row(&[1, 2, 3, 4, 5, 6, 7, 8]);
        unbroken.learn(3);
        unbroken.make_room(8, 1, Some(0));
        assert_eq!(tokens(&unbroken), [3, 4, 5, 6, 7, 8], "three quarters stay");
        assert_eq!((unbroken.chunk_start(), unbroken.learned()), (1, 3));
    }

    #[test]
    fn what_is_not_to_be_learned_is_no_target() {
        let mut row = row(&[1, 2]);
        row.push(&[3], false);
        row.push(&[4], true);
        assert_eq!(row.lesson(4), [(1, Some(2)), (2, None), (3, Some(4)), (4, None)]);
        row.learn(1);
        assert!(!row.teaches(1) && row.teaches(2));
    }
}
