//! A session: a trained model with the state of what it has read. Rows read, learn and answer independently.
//!
//! Memories that learn from their losses learn a chunk at a time: its teach signal has gradients from its later tokens,
//! so it is known only at its end. A row therefore has tokens pending, which attention sees already and memories do not;
//! a chunk that is full, and whose next token is known, is read (again) by `learn`, before that next token is read. When
//! a context is full, the row goes on in a new one that starts with its last tokens: what was before is left to its
//! memories.

mod row;

use std::collections::BTreeMap;

use crate::Error;
use crate::config::Resolved;
use crate::machine::{Feed, Machine};
use crate::plugins::Registry;
use crate::trace::{
    Banks, CONTEXT_START, MEMORY, POSITION, ROWS, STEP_INDEX, STREAM_READ, SessionPrograms, SessionShape,
};
use row::{Row, Stretch};

pub use row::Price;

pub struct Session {
    machine: Machine,
    shape: SessionShape,
    /// Tokens of a chunk that memories learn from; None where they do not.
    chunk: Option<usize>,
    /// States of memories and caches, which a snapshot holds.
    memories: Vec<String>,
    rows: Vec<Row>,
    /// Token after which a text begins: a context starts there where it can.
    boundary: Option<i32>,
    /// Steps that the parameters were trained for.
    steps_done: u64,
}

/// Where every row stands, to go back to.
#[derive(Clone)]
pub struct Snapshot {
    states: BTreeMap<String, Vec<f32>>,
    rows: Vec<Row>,
}

/// Whether what is read is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Read,
    Learn,
}

/// A target that prices nothing and teaches nothing.
const NO_TARGET: i32 = -100;

impl Session {
    /// A session of a trained model. `parameters` gives the content of each bank's State.
    pub fn open(
        resolved: &Resolved,
        registry: &Registry,
        banks: &Banks,
        shape: SessionShape,
        (steps_done, boundary): (u64, Option<i32>),
        parameters: impl Fn(&str) -> Result<Vec<f32>, Error>,
    ) -> Result<Session, Error> {
        let SessionPrograms { list, chunk } = SessionPrograms::trace(resolved, registry, banks, shape)?;
        let graphs: Vec<(&str, &graph::Graph)> =
            list.iter().map(|program| (program.name, &program.graph)).collect();
        let settings = &resolved.settings;
        let mut machine = Machine::load(settings.device, settings.threads, &graphs)?;
        for bank in &banks.banks {
            machine.write_state(&bank.state(), &parameters(&bank.state())?)?;
        }
        let memories = crate::machine::states(list.iter().map(|program| &program.graph));
        let memories = memories.into_iter().map(|decl| decl.name).filter(|name| name.starts_with(MEMORY));
        let rows = vec![Row::default(); shape.rows];
        Ok(Session { machine, shape, chunk, memories: memories.collect(), rows, boundary, steps_done })
    }

    /// Tokens of a chunk that memories learn from; None where reading is all there is.
    pub fn chunk(&self) -> Option<usize> {
        self.chunk
    }

    /// Reads `tokens[r]` in row r, and learns from every chunk that is full and has something to learn: tokens read with
    /// [`Mode::Learn`]. Returns what each token cost, but for the first of a row since it was reset.
    pub fn read(&mut self, tokens: &[Vec<i32>], mode: Mode) -> Result<Vec<Vec<Price>>, Error> {
        if tokens.len() != self.shape.rows {
            return Err(Error::said(format!(
                "{} texts for a session of {} rows",
                tokens.len(),
                self.shape.rows
            )));
        }
        let SessionShape { capacity, width, .. } = self.shape;
        let mut left: Vec<&[i32]> = tokens.iter().map(Vec::as_slice).collect();
        while left.iter().any(|tokens| !tokens.is_empty()) {
            for (row, tokens) in self.rows.iter_mut().zip(&mut left).filter(|(_, tokens)| !tokens.is_empty())
            {
                // As far as the first token of the next chunk: memories change before it is read.
                let most = self.chunk.map_or(width, |chunk| (chunk + 1).saturating_sub(row.pending()).max(1));
                let count = tokens.len().min(most).min(capacity);
                row.make_room(capacity, count, self.boundary);
                let (now, later) = tokens.split_at(count);
                row.push(now, mode == Mode::Learn);
                *tokens = later;
            }
            self.learn_full_chunks()?;
            let ends: Vec<usize> = self.rows.iter().map(Row::length).collect();
            self.catch_up(&ends)?;
        }
        Ok(self.rows.iter_mut().map(Row::take_prices).collect())
    }

    /// Logits after the last token of a row; None where it has read nothing.
    pub fn logits(&self, row: usize) -> Option<&[f32]> {
        self.rows.get(row)?.logits().map(Vec::as_slice)
    }

    /// Writes what memories of these rows have pending, the tokens of a chunk that is not full included.
    pub fn flush(&mut self, wanted: &[bool]) -> Result<(), Error> {
        let Some(chunk) = self.chunk else { return Ok(()) };
        self.learn(chunk, |row, index| if wanted[index] { row.pending().min(chunk) } else { 0 })?;
        let rows: Vec<i32> = wanted.iter().map(|wanted| i32::from(*wanted)).collect();
        let read: Vec<i32> = self.rows.iter().map(|row| row.learned() as i32).collect();
        self.run("flush", |name| match name {
            ROWS => Some(Feed::I32(&rows)),
            STREAM_READ => Some(Feed::I32(&read)),
            _ => None,
        })?;
        let flushed = self.rows.iter_mut().zip(wanted).filter(|(_, wanted)| **wanted);
        flushed.for_each(|(row, _)| row.start_period());
        Ok(())
    }

    /// Rows as they were before they read anything.
    pub fn reset(&mut self, wanted: &[bool]) -> Result<(), Error> {
        if !self.memories.is_empty() {
            let rows: Vec<i32> = wanted.iter().map(|wanted| i32::from(*wanted)).collect();
            self.run("reset", |name| (name == ROWS).then_some(Feed::I32(&rows)))?;
        }
        for (row, _) in self.rows.iter_mut().zip(wanted).filter(|(_, wanted)| **wanted) {
            *row = Row::default();
        }
        Ok(())
    }

    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        let state = |name: &String| Ok((name.clone(), self.machine.read_state(name)?));
        let states = self.memories.iter().map(state).collect::<Result<_, Error>>()?;
        Ok(Snapshot { states, rows: self.rows.clone() })
    }

    /// Goes back to a snapshot of this session.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        for (name, values) in &snapshot.states {
            self.machine.write_state(name, values)?;
        }
        self.rows.clone_from(&snapshot.rows);
        Ok(())
    }

    /// Content of a memory, `[R, ...]`: what it has become beyond its start.
    pub fn memory(&self, path: &str) -> Result<Vec<f32>, Error> {
        self.machine.read_state(&format!("{MEMORY}{path}"))
    }

    /// Reads tokens that attention does not see yet, in each row up to a place of its context.
    fn catch_up(&mut self, ends: &[usize]) -> Result<(), Error> {
        loop {
            let unread: Vec<usize> =
                self.rows.iter().zip(ends).map(|(row, end)| end.saturating_sub(row.cached())).collect();
            let (plan, width) = match unread.iter().max() {
                None | Some(0) => return Ok(()),
                _ if self.machine.plan("window").is_some() => ("window", self.shape.capacity),
                Some(1) => ("step", 1),
                Some(_) => ("read", self.shape.width),
            };
            // A model that reads contexts whole reads them anew.
            let anew = plan == "window";
            let stretch = |(row, unread): (&Row, usize)| match unread {
                0 => Stretch { start: row.cached(), count: 0 },
                unread if anew => Stretch { start: 0, count: row.cached() + unread },
                unread => Stretch { start: row.cached(), count: unread.min(width) },
            };
            let stretches: Vec<Stretch> = self.rows.iter().zip(unread).map(stretch).collect();
            let outputs = self.call(plan, width, &stretches, Row::stretch)?;
            let (logits, prices) = (output(&outputs, "logits")?, prices(&outputs)?);
            for (index, (row, stretch)) in self.rows.iter_mut().zip(stretches).enumerate() {
                if stretch.count > 0 {
                    row.price(stretch.start, &prices[index * width..][..stretch.count]);
                    row.read(stretch, &logits[index * self.shape.vocab..][..self.shape.vocab]);
                }
            }
        }
    }

    /// Learns from the chunks that are full and whose next token is known.
    fn learn_full_chunks(&mut self) -> Result<(), Error> {
        let Some(chunk) = self.chunk else { return Ok(()) };
        self.learn(chunk, |row, _| if row.pending() > chunk { chunk } else { 0 })
    }

    /// Learns from the first pending tokens of rows, as many as `count` says; passes over those that teach nothing.
    fn learn(&mut self, chunk: usize, count: impl Fn(&Row, usize) -> usize) -> Result<(), Error> {
        let counts: Vec<usize> = self.rows.iter().enumerate().map(|(index, row)| count(row, index)).collect();
        let teaching: Vec<usize> = self
            .rows
            .iter()
            .zip(&counts)
            .map(|(row, count)| if row.teaches(*count) { *count } else { 0 })
            .collect();
        if teaching.iter().any(|count| *count > 0) {
            // A context that started anew has to be in place before its chunk; so has what is priced and not learned.
            let end = |(row, count): (&Row, &usize)| {
                row.chunk_start() + if row.is_open(*count) { *count } else { 0 }
            };
            let ends: Vec<usize> = self.rows.iter().zip(&teaching).map(end).collect();
            self.catch_up(&ends)?;
            let stretch = |(row, count): (&Row, &usize)| Stretch { start: row.chunk_start(), count: *count };
            let stretches: Vec<Stretch> = self.rows.iter().zip(&teaching).map(stretch).collect();
            let outputs = self.call("learn", chunk, &stretches, |row, stretch| row.lesson(stretch.count))?;
            let prices = prices(&outputs)?;
            for (index, (row, stretch)) in self.rows.iter_mut().zip(stretches).enumerate() {
                row.price(stretch.start, &prices[index * chunk..][..stretch.count]);
            }
        }
        for ((row, count), teaching) in self.rows.iter_mut().zip(counts).zip(teaching) {
            if teaching > 0 { row.learn(teaching) } else { row.pass_over(count) }
        }
        Ok(())
    }

    /// Runs a plan of `width` tokens on a stretch of each row, whose tokens and targets `text` gives; rows whose stretch
    /// is empty stay as they are.
    fn call(
        &mut self,
        plan: &str,
        width: usize,
        stretches: &[Stretch],
        text: impl Fn(&Row, Stretch) -> Vec<(i32, Option<i32>)>,
    ) -> Result<Vec<(String, Vec<f32>)>, Error> {
        let (mut tokens, mut targets) = (Vec::new(), Vec::new());
        for (row, stretch) in self.rows.iter().zip(stretches) {
            let (mut own, next): (Vec<i32>, Vec<Option<i32>>) = text(row, *stretch).into_iter().unzip();
            let mut next: Vec<i32> = next.into_iter().map(|target| target.unwrap_or(NO_TARGET)).collect();
            own.resize(width, 0);
            next.resize(width, NO_TARGET);
            tokens.extend(own);
            targets.extend(next);
        }
        let of_rows = |value: fn((&Row, &Stretch)) -> usize| -> Vec<i32> {
            self.rows.iter().zip(stretches).map(|pair| value(pair) as i32).collect()
        };
        let rows = of_rows(|(_, stretch)| usize::from(stretch.count > 0));
        let start = of_rows(|(_, stretch)| stretch.start);
        let last = of_rows(|(_, stretch)| stretch.count.saturating_sub(1));
        let read = of_rows(|(row, _)| row.learned());
        self.run(plan, |name| match name {
            "tokens" => Some(Feed::I32(&tokens)),
            "targets" => Some(Feed::I32(&targets)),
            POSITION => Some(Feed::I32(&last)),
            ROWS => Some(Feed::I32(&rows)),
            STREAM_READ => Some(Feed::I32(&read)),
            CONTEXT_START => Some(Feed::I32(&start)),
            _ => None,
        })
    }

    fn run<'f>(
        &mut self,
        plan: &str,
        feed: impl Fn(&str) -> Option<Feed<'f>>,
    ) -> Result<Vec<(String, Vec<f32>)>, Error> {
        let number = self.machine.plan(plan);
        let number = number.ok_or_else(|| Error::said(format!("the session has no plan {plan}")))?;
        let steps = Feed::Count(self.steps_done as i32);
        self.machine.run(number, |name| if name == STEP_INDEX { Some(steps) } else { feed(name) })
    }
}

fn output<'o>(outputs: &'o [(String, Vec<f32>)], wanted: &str) -> Result<&'o [f32], Error> {
    let found = outputs.iter().find(|(name, _)| name == wanted).map(|(_, values)| values.as_slice());
    found.ok_or_else(|| Error::said(format!("the session's plan has no output {wanted}")))
}

/// What the targets of a call cost, row after row.
fn prices(outputs: &[(String, Vec<f32>)]) -> Result<Vec<Price>, Error> {
    let losses = output(outputs, "token_losses")?.iter().zip(output(outputs, "correct")?);
    Ok(losses.map(|(loss, hit)| Price { loss: f64::from(*loss), is_best: *hit == 1.0 }).collect())
}
