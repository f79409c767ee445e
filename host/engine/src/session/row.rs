//! One row of a session: its context, and how far of it attention sees and memories have learned.
//!
//! ```text
//! tokens   | learned or passed over  | pending                  |
//!          0                         chunk start                end
//!          | cached: attention sees them            | unread    |
//! ```

/// What stays of a full context in which no text begins; the rest is room for what comes.
const STAYS: (usize, usize) = (3, 4);

#[derive(Clone, Debug, Default)]
pub struct Row {
    /// The context, each token with whether it is to be learned.
    tokens: Vec<(i32, bool)>,
    /// Tokens whose keys and values are in place.
    cached: usize,
    /// Where the tokens begin that memories have not learned from.
    chunk_start: usize,
    /// Tokens that memories have learned from, of this and earlier contexts, since a period began.
    learned: usize,
}

impl Row {
    pub fn push(&mut self, tokens: &[i32], learn: bool) {
        self.tokens.extend(tokens.iter().map(|token| (*token, learn)));
    }

    /// The context.
    pub fn tokens(&self) -> Vec<i32> {
        self.tokens.iter().map(|(token, _)| *token).collect()
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
        self.chunk_start = self.chunk_start.saturating_sub(gone);
    }

    pub fn cached(&self) -> usize {
        self.cached
    }

    /// Tokens that attention does not see yet, of the first `end` of the context.
    pub fn unread(&self, end: usize) -> Vec<i32> {
        let unread = self.tokens.get(self.cached..end.min(self.tokens.len())).unwrap_or_default();
        unread.iter().map(|(token, _)| *token).collect()
    }

    pub fn read(&mut self, count: usize) {
        self.cached += count;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tokens: &[i32]) -> Row {
        let mut row = Row::default();
        row.push(tokens, true);
        row.read(tokens.len());
        row
    }

    #[test]
    fn a_full_context_goes_on_from_where_a_text_begins() {
        let mut full = row(&[1, 2, 0, 3, 4, 5]);
        full.make_room(8, 2, Some(0));
        assert_eq!((full.length(), full.cached()), (6, 6), "there is room");
        full.make_room(7, 2, Some(0));
        assert_eq!((full.unread(9), full.cached()), (vec![3, 4, 5], 0));
        let mut unbroken = row(&[1, 2, 3, 4, 5, 6, 7, 8]);
        unbroken.learn(3);
        unbroken.make_room(8, 1, Some(0));
        assert_eq!(unbroken.unread(9), [3, 4, 5, 6, 7, 8], "three quarters stay");
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
