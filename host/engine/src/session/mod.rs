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
use row::Row;

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
    /// [`Mode::Learn`]. Returns the logits after the last token of each row that has any.
    pub fn read(&mut self, tokens: &[Vec<i32>], mode: Mode) -> Result<Vec<Option<Vec<f32>>>, Error> {
        if tokens.len() != self.shape.rows {
            return Err(Error::said(format!(
                "{} texts for a session of {} rows",
                tokens.len(),
                self.shape.rows
            )));
        }
        let SessionShape { capacity, width, .. } = self.shape;
        let mut logits = vec![None; self.shape.rows];
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
            for (kept, new) in logits.iter_mut().zip(self.catch_up(Row::length)?) {
                *kept = new.or(kept.take());
            }
        }
        Ok(logits)
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

    /// Reads tokens that attention does not see yet, up to the place that `end` says. Logits after the last one of each
    /// row that had any.
    fn catch_up(&mut self, end: impl Fn(&Row) -> usize) -> Result<Vec<Option<Vec<f32>>>, Error> {
        let mut logits = vec![None; self.shape.rows];
        loop {
            let unread: Vec<Vec<i32>> = self.rows.iter().map(|row| row.unread(end(row))).collect();
            let (plan, width) = match unread.iter().map(Vec::len).max() {
                None | Some(0) => return Ok(logits),
                _ if self.machine.plan("window").is_some() => return self.reread(),
                Some(1) => ("step", 1),
                Some(_) => ("read", self.shape.width),
            };
            let counts: Vec<usize> = unread.iter().map(|tokens| tokens.len().min(width)).collect();
            let tokens: Vec<i32> = unread
                .iter()
                .zip(&counts)
                .flat_map(|(tokens, count)| filled(tokens[..*count].to_vec(), width, 0))
                .collect();
            let position: Vec<i32> = counts.iter().map(|count| count.saturating_sub(1) as i32).collect();
            let start: Vec<i32> = self.rows.iter().map(|row| row.cached() as i32).collect();
            let outputs = self.call(plan, &counts, &start, |name| match name {
                "tokens" => Some(Feed::I32(&tokens)),
                POSITION => Some(Feed::I32(&position)),
                _ => None,
            })?;
            let values = output(&outputs, "logits")?.chunks(self.shape.vocab);
            for (((row, count), values), kept) in
                self.rows.iter_mut().zip(counts).zip(values).zip(&mut logits)
            {
                row.read(count);
                if count > 0 {
                    *kept = Some(values.to_vec());
                }
            }
        }
    }

    /// Logits of a model that reads contexts whole, each time anew.
    fn reread(&mut self) -> Result<Vec<Option<Vec<f32>>>, Error> {
        let mut tokens = Vec::new();
        let mut position = Vec::new();
        for row in &self.rows {
            position.push(row.length().saturating_sub(1) as i32);
            tokens.extend(filled(row.tokens(), self.shape.capacity, 0));
        }
        let outputs = self.run("window", |name| match name {
            "tokens" => Some(Feed::I32(&tokens)),
            POSITION => Some(Feed::I32(&position)),
            _ => None,
        })?;
        let values = output(&outputs, "logits")?.chunks(self.shape.vocab);
        let each = self.rows.iter_mut().zip(values).map(|(row, values)| {
            let unread = row.length() - row.cached();
            row.read(unread);
            (unread > 0).then(|| values.to_vec())
        });
        Ok(each.collect())
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
            // A context that started anew has to be in place before its chunk.
            self.catch_up(Row::chunk_start)?;
            let (mut tokens, mut targets) = (Vec::new(), Vec::new());
            for (row, count) in self.rows.iter().zip(&teaching) {
                let (now, next): (Vec<i32>, Vec<Option<i32>>) = row.lesson(*count).into_iter().unzip();
                tokens.extend(filled(now, chunk, 0));
                let next = next.into_iter().map(|target| target.unwrap_or(NO_TARGET)).collect();
                targets.extend(filled(next, chunk, NO_TARGET));
            }
            let start: Vec<i32> = self.rows.iter().map(|row| row.chunk_start() as i32).collect();
            self.call("learn", &teaching, &start, |name| match name {
                "tokens" => Some(Feed::I32(&tokens)),
                "targets" => Some(Feed::I32(&targets)),
                _ => None,
            })?;
        }
        for ((row, count), teaching) in self.rows.iter_mut().zip(counts).zip(teaching) {
            if teaching > 0 { row.learn(teaching) } else { row.pass_over(count) }
        }
        Ok(())
    }

    /// Runs a plan for the rows that have tokens, from the given places of their contexts on.
    fn call<'f>(
        &mut self,
        plan: &str,
        counts: &[usize],
        start: &'f [i32],
        feed: impl Fn(&str) -> Option<Feed<'f>>,
    ) -> Result<Vec<(String, Vec<f32>)>, Error> {
        let rows: Vec<i32> = counts.iter().map(|count| i32::from(*count > 0)).collect();
        let read: Vec<i32> = self.rows.iter().map(|row| row.learned() as i32).collect();
        self.run(plan, |name| match name {
            ROWS => Some(Feed::I32(&rows)),
            STREAM_READ => Some(Feed::I32(&read)),
            CONTEXT_START => Some(Feed::I32(start)),
            _ => feed(name),
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

/// `tokens`, and `filler` up to `width`.
fn filled(mut tokens: Vec<i32>, width: usize, filler: i32) -> Vec<i32> {
    tokens.resize(width, filler);
    tokens
}

fn output<'o>(outputs: &'o [(String, Vec<f32>)], wanted: &str) -> Result<&'o [f32], Error> {
    let found = outputs.iter().find(|(name, _)| name == wanted).map(|(_, values)| values.as_slice());
    found.ok_or_else(|| Error::said(format!("the session's plan has no output {wanted}")))
}
