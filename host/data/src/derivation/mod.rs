//! Writing a text by a grammar, and charging every byte its exact probability.
//!
//! A grammar is a function that calls [`Teller::choose`] for each thing it leaves open. The options of one
//! choice are prefix-free byte strings, so a text has at most one derivation, and the probability of *any*
//! prefix, cut where one likes, is the product over its bytes of
//! `weight of the options that go on with this byte / weight of the options still possible`:
//! a walk down the options' trie. What the grammar's state determines is an option set of one, and costs 0.
//!
//! The same function runs in two ways: drawing from a random stream, or following a given text. That the
//! second finds the charges of the first shows that nothing latent is left in the text.

use crate::rng::Stream;

/// What a byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tag {
    /// The skeleton of a sentence, and which sentence comes next.
    Template,
    /// A small choice that nothing earlier decides, such as a colour or a new name.
    Free,
    /// The rest of a known name after its initial.
    NameTail,
    /// The answer to a question about an earlier fact.
    Answer,
}

/// The price of one byte, in bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Charge {
    /// Under the grammar itself, which remembers everything: the lowest loss there is.
    pub floor_bits: f64,
    /// Under the grammar of a reader who knows the scene but remembers no name tail and no fact.
    pub memoryless_bits: f64,
    pub tag: Tag,
}

/// What a question asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// Who has a thing.
    Who,
    /// Where somebody is.
    Where,
}

impl Question {
    pub fn name(self) -> &'static str {
        match self {
            Question::Who => "who",
            Question::Where => "where",
        }
    }
}

/// The bytes of one complete answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AnswerSpan {
    pub question: Question,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// Accuracy of guessing evenly among the candidate answers.
    pub chance: f64,
    /// Bytes from the end of the sentence that stated the fact to `start`.
    pub distance: usize,
}

/// One way on: its bytes and its weight relative to the other options.
#[derive(Clone, Copy, Debug)]
pub struct Alternative<'a> {
    pub text: &'a str,
    pub weight: f64,
}

/// Even weights over `texts`.
pub fn evenly<'a>(texts: &[&'a str]) -> Vec<Alternative<'a>> {
    texts.iter().map(|text| Alternative { text, weight: 1.0 }).collect()
}

/// The text ends here: it is as long as was asked, or the followed text leaves the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop;

/// Where decisions come from.
enum Decider<'a> {
    Draw(Stream),
    Follow(&'a [u8]),
    /// Option numbers in order, 0 past the end, to enumerate derivations. Records how many options there
    /// were and the product of the picked options' shares.
    #[cfg(test)]
    Script {
        picks: Vec<usize>,
        arities: Vec<usize>,
        probability: f64,
    },
}

/// Writes one text and keeps its charges.
pub struct Teller<'a> {
    decider: Decider<'a>,
    limit: usize,
    bytes: Vec<u8>,
    charges: Vec<Charge>,
    answers: Vec<AnswerSpan>,
}

/// What was written: one charge per byte, and the answers that lie wholly inside.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub bytes: Vec<u8>,
    pub charges: Vec<Charge>,
    pub answers: Vec<AnswerSpan>,
}

impl<'a> Teller<'a> {
    /// Draws a text of exactly `limit` bytes (fewer if the grammar ends first).
    pub fn drawing(stream: Stream, limit: usize) -> Teller<'a> {
        Teller::new(Decider::Draw(stream), limit)
    }

    /// Follows `text` as far as it is grammatical.
    pub fn following(text: &'a [u8]) -> Teller<'a> {
        Teller::new(Decider::Follow(text), text.len())
    }

    #[cfg(test)]
    fn scripted(picks: Vec<usize>) -> Teller<'a> {
        Teller::new(Decider::Script { picks, arities: Vec::new(), probability: 1.0 }, usize::MAX)
    }

    fn new(decider: Decider<'a>, limit: usize) -> Teller<'a> {
        let room = if limit == usize::MAX { 0 } else { limit };
        let (bytes, charges) = (Vec::with_capacity(room), Vec::with_capacity(room));
        Teller { decider, limit, bytes, charges, answers: Vec::new() }
    }

    /// Bytes written so far.
    pub fn position(&self) -> usize {
        self.bytes.len()
    }

    pub fn finish(self) -> Told {
        Told { bytes: self.bytes, charges: self.charges, answers: self.answers }
    }

    /// Writes text that nothing could replace.
    pub fn fixed(&mut self, text: &str) -> Result<(), Stop> {
        self.choose(Tag::Template, &[Alternative { text, weight: 1.0 }], None).map(|_| ())
    }

    /// Decides among `options`, writes the chosen one and returns its index.
    ///
    /// `prior` are the options of a reader without memory, where they differ: they must hold every text
    /// that `options` may hold. Both sets must be prefix-free, with positive weights.
    pub fn choose(
        &mut self,
        tag: Tag,
        options: &[Alternative],
        prior: Option<&[Alternative]>,
    ) -> Result<usize, Stop> {
        if cfg!(any(test, debug_assertions)) {
            check(options, prior);
        }
        let picked = self.decide(options)?;
        let text = options.get(picked).ok_or(Stop)?.text;
        let written = self.write(tag, text.as_bytes(), options, prior.unwrap_or(options));
        if written == text.len() { Ok(picked) } else { Err(Stop) }
    }

    /// Notes that the bytes since `start` answer `question`. Called once the answer is complete.
    pub fn answered(&mut self, question: Question, start: usize, chance: f64, distance: usize) {
        self.answers.push(AnswerSpan { question, start, end: self.bytes.len(), chance, distance });
    }

    fn decide(&mut self, options: &[Alternative]) -> Result<usize, Stop> {
        match &mut self.decider {
            Decider::Draw(_) if options.len() == 1 => Ok(0),
            Decider::Draw(stream) => {
                let total: f64 = options.iter().map(|option| option.weight).sum();
                let mut rest = stream.uniform() * total;
                let crossed = options.iter().position(|option| {
                    rest -= option.weight;
                    rest < 0.0
                });
                // Rounding may leave a crumb of weight after the last option.
                crossed.or(options.len().checked_sub(1)).ok_or(Stop)
            }
            Decider::Follow(text) => {
                let rest = text.get(self.bytes.len()..).unwrap_or_default();
                let shared = |option: &Alternative| {
                    option.text.bytes().zip(rest).take_while(|(wanted, found)| wanted == *found).count()
                };
                // Of prefix-free options at most one is matched whole, and no other matches longer.
                (0..options.len()).max_by_key(|&index| shared(&options[index])).ok_or(Stop)
            }
            #[cfg(test)]
            Decider::Script { picks, arities, probability } => {
                let picked = picks.get(arities.len()).copied().unwrap_or(0);
                arities.push(options.len());
                *probability *=
                    options[picked].weight / options.iter().map(|option| option.weight).sum::<f64>();
                Ok(picked)
            }
        }
    }

    /// Writes `text` byte by byte until the limit or, when following, the first byte that differs.
    fn write(&mut self, tag: Tag, text: &[u8], options: &[Alternative], prior: &[Alternative]) -> usize {
        let mut floor = TrieWalk::new(options);
        let mut memoryless = TrieWalk::new(prior);
        for (depth, &byte) in text.iter().enumerate() {
            let position = self.bytes.len();
            let differs = match &self.decider {
                Decider::Follow(followed) => followed.get(position) != Some(&byte),
                _ => false,
            };
            if position == self.limit || differs {
                return depth;
            }
            self.bytes.push(byte);
            let floor_bits = floor.bits(options, depth, byte);
            let memoryless_bits = memoryless.bits(prior, depth, byte);
            self.charges.push(Charge { floor_bits, memoryless_bits, tag });
        }
        text.len()
    }
}

/// The options that agree with the bytes seen so far, as a bit set, and their weight.
struct TrieWalk {
    alive: u64,
    weight: f64,
}

/// The widest choice a [`TrieWalk`] can hold.
const MAX_OPTIONS: usize = u64::BITS as usize;

impl TrieWalk {
    fn new(options: &[Alternative]) -> TrieWalk {
        let alive = if options.len() >= MAX_OPTIONS { u64::MAX } else { (1 << options.len()) - 1 };
        TrieWalk { alive, weight: options.iter().map(|option| option.weight).sum() }
    }

    /// The bits of `byte` at `depth`, after which only the options that have it there are alive.
    fn bits(&mut self, options: &[Alternative], depth: usize, byte: u8) -> f64 {
        if self.alive.is_power_of_two() {
            return 0.0; // the last option left goes on as it must
        }
        let before = self.weight;
        let mut candidates = self.alive;
        let mut still_alive = 0;
        self.weight = 0.0;
        while candidates != 0 {
            let index = candidates.trailing_zeros() as usize;
            candidates &= candidates - 1;
            if options[index].text.as_bytes().get(depth) == Some(&byte) {
                still_alive |= 1 << index;
                self.weight += options[index].weight;
            }
        }
        let unchanged = still_alive == self.alive;
        self.alive = still_alive;
        if unchanged { 0.0 } else { (before / self.weight).log2() }
    }
}

/// A grammar that breaks these rules has wrong charges, so tests and debug builds stop at the choice.
fn check(options: &[Alternative], prior: Option<&[Alternative]>) {
    for set in [Some(options), prior].into_iter().flatten() {
        assert!(!set.is_empty() && set.len() <= MAX_OPTIONS, "a choice has 1 to {MAX_OPTIONS} options");
        assert!(set.iter().all(|option| option.weight > 0.0 && !option.text.is_empty()), "{set:?}");
        for (index, one) in set.iter().enumerate() {
            let clash = set
                .iter()
                .skip(index + 1)
                .find(|other| one.text.starts_with(other.text) || other.text.starts_with(one.text));
            assert!(clash.is_none(), "{one:?} and {clash:?} are not prefix-free");
        }
    }
    if let Some(prior) = prior {
        let missing = options.iter().find(|option| prior.iter().all(|other| other.text != option.text));
        assert!(missing.is_none(), "{missing:?} has no prior");
    }
}

#[cfg(test)]
mod tests;
