//! What comes back from the device: outputs, copied aside at the end of the replay that computed them.
//!
//! The copy is part of the replay's command buffer and all outputs are mapped at once, so reading them takes one wait, which
//! ends when their replay does: replays submitted after it go on meanwhile. Buffers to copy to are used in turn.

use std::cell::OnceCell;
use std::sync::mpsc::{self, Receiver};

use plan::{IoSlot, Plan};
use wgpu::{Buffer, BufferAsyncError, BufferUsages, CommandEncoder, MapMode, PollType, SubmissionIndex};

use crate::gpu::{Gpu, buffer};

/// Where a plan's outputs are copied to.
pub struct Staging {
    /// Where each output begins; then the length.
    starts: Vec<usize>,
    free: Vec<Buffer>,
}

/// The outputs of one replay.
pub struct Replayed {
    pub plan: usize,
    copy: Buffer,
    submission: SubmissionIndex,
    mapped: OnceCell<Receiver<Result<(), BufferAsyncError>>>,
    bytes: OnceCell<Vec<u8>>,
}

impl Staging {
    pub fn new(plan: &Plan) -> Staging {
        let mut starts = vec![0];
        for output in &plan.outputs {
            starts.push(starts[starts.len() - 1] + output.slot.bytes);
        }
        Staging { starts, free: Vec::new() }
    }

    fn bytes(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    /// Adds the copies to a replay. `memory` tells in which buffer an output lies. Nothing where there are no outputs.
    pub fn copy<'m>(
        &mut self,
        gpu: &Gpu,
        encoder: &mut CommandEncoder,
        outputs: &[IoSlot],
        memory: impl Fn(&IoSlot) -> &'m Buffer,
    ) -> Result<Option<Buffer>, plan::DeviceError> {
        if outputs.is_empty() {
            return Ok(None);
        }
        let usage = BufferUsages::COPY_DST | BufferUsages::MAP_READ;
        let copy = match self.free.pop() {
            Some(copy) => copy,
            None => buffer(gpu, "read-back", self.bytes(), usage)?,
        };
        for (output, start) in outputs.iter().zip(&self.starts) {
            let (from, bytes) = (output.slot.offset as u64, output.slot.bytes as u64);
            encoder.copy_buffer_to_buffer(memory(output), from, &copy, *start as u64, bytes);
        }
        Ok(Some(copy))
    }

    /// One output of a replay's.
    pub fn part<'b>(&self, bytes: &'b [u8], output: usize) -> &'b [u8] {
        &bytes[self.starts[output]..self.starts[output + 1]]
    }

    /// A replay whose outputs nobody will ask for any more.
    pub fn give_back(&mut self, replayed: Replayed) {
        if replayed.mapped.get().is_some() {
            replayed.copy.unmap();
        }
        self.free.push(replayed.copy);
    }
}

impl Replayed {
    pub fn new(plan: usize, copy: Buffer, submission: SubmissionIndex) -> Replayed {
        Replayed { plan, copy, submission, mapped: OnceCell::new(), bytes: OnceCell::new() }
    }

    /// Asks for the outputs without waiting for them.
    pub fn ask(&self) -> &Receiver<Result<(), BufferAsyncError>> {
        self.mapped.get_or_init(|| {
            let (sender, receiver) = mpsc::channel();
            self.copy.map_async(MapMode::Read, .., move |outcome| {
                // Whoever gave up on the outputs dropped the receiver.
                let _ = sender.send(outcome);
            });
            receiver
        })
    }

    /// All outputs, one after another, as soon as their replay is over.
    pub fn bytes(&self, gpu: &Gpu) -> Result<&[u8], String> {
        if let Some(bytes) = self.bytes.get() {
            return Ok(bytes);
        }
        let receiver = self.ask();
        let until = PollType::Wait { submission_index: Some(self.submission.clone()), timeout: None };
        gpu.poll(until)?;
        receiver.recv().map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let view = self.copy.get_mapped_range(..).map_err(|error| error.to_string())?;
        Ok(self.bytes.get_or_init(|| view.to_vec()))
    }
}
