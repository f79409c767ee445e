//! Training steps of whole models, on random text over as many characters as the job's vocabulary has.
//!
//! Peers start from the same weights and read the same batches: both are left in a folder, weights as one file of f32
//! beside a list of names and shapes, batches as one file of i32.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use data::Stream;
use engine::config::Request;
use engine::machine::Watch;
use engine::plugins::Registry;
use engine::run::{Prepared, prepare};
use plan::Cost;
use serde_json::json;
use tempfile::TempDir;

use super::Step;

/// Steps whose batches are exported; peers that take more begin again.
const EXPORTED: u64 = 256;
/// Characters of text for each one of the vocabulary, so that none is missing.
const REPEATS: usize = 40;
/// First of the characters: a block without spaces or combining marks.
const FIRST: u32 = 0x4E00;

/// What all jobs have in common: a constant rate, everything else as a peer can have it.
const COMMON: [&str; 7] = [
    "tokenizer=char",
    "train.schedule=constant",
    "train.warmup=0",
    "train.lr=1e-4",
    "train.clip=1.0",
    "beta2=0.999",
    "optimizer.adamw.weight_decay=0.01",
];

/// (job, vocabulary, model, optimizer, settings beyond [`COMMON`])
type Row = (&'static str, usize, &'static str, &'static str, &'static [&'static str]);

const CRAFT: [&str; 10] = [
    "model.transformer.d_model=128",
    "layers=6",
    "d_hidden=512",
    "positions=learned",
    "tied=false",
    "embed_scale=true",
    "heads=8",
    "batch=64",
    "window=256",
    "dropout=0",
];
const CRAFT_DROPOUT: [&str; 10] =
    [CRAFT[0], CRAFT[1], CRAFT[2], CRAFT[3], CRAFT[4], CRAFT[5], CRAFT[6], CRAFT[7], CRAFT[8], "dropout=0.2"];
const MIDDLE: [&str; 6] =
    ["d_model=512", "layers=8", "positions=learned", "heads=8", "batch=4", "window=256"];
const TINY: [&str; 6] = ["d_model=64", "layers=2", "positions=learned", "heads=4", "batch=8", "window=64"];
const HOPE: [&str; 10] = [
    "d_model=256",
    "layers=4",
    "rope=false",
    "periods=[16,64,256]",
    "online_chunk=16",
    "write_grad=none",
    "heads=4",
    "kv_grad=full",
    "batch=4",
    "window=256",
];

const ROWS: [Row; 6] = [
    ("craft-1m", 65, "transformer", "adamw", &CRAFT),
    ("craft-1m-dropout", 65, "transformer", "adamw", &CRAFT_DROPOUT),
    ("30m", 8192, "transformer", "adamw", &MIDDLE),
    ("tiny", 96, "transformer", "adamw", &TINY),
    ("hope", 8192, "hope", "adamw", &HOPE),
    ("muon", 8192, "transformer", "muon", &MIDDLE),
];

/// Launches of the update alone are what the job `muon` counts.
const UPDATE: &str = "optimizer.matrix";

pub struct Training {
    prepared: Prepared<'static>,
    only_update: bool,
    next: u64,
    /// Holds the text as long as it may be read.
    _folder: TempDir,
}

impl Training {
    /// None where no training has this name.
    pub fn prepare(name: &str, threads: usize, export: Option<&Path>) -> Result<Option<Training>, String> {
        let Some((request, vocab)) = request(name) else { return Ok(None) };
        let said = |error: &dyn std::fmt::Display| error.to_string();
        let folder = tempfile::tempdir().map_err(|error| said(&error))?;
        let path = folder.path().join("text.txt");
        std::fs::write(&path, text(vocab)).map_err(|error| said(&error))?;
        let request = Request { data: Some(path), threads: Some(threads), ..request };
        // The process ends with the job, so nobody misses it.
        let registry: &'static Registry = Box::leak(Box::new(Registry::discover()));
        let prepared = prepare(&request, registry).map_err(|error| said(&error))?;
        if prepared.shape.vocab != vocab {
            return Err(format!("{name}: a vocabulary of {} instead of {vocab}", prepared.shape.vocab));
        }
        if let Some(folder) = export {
            exported(&prepared, folder)?;
        }
        let only_update = name == "muon";
        Ok(Some(Training { prepared, only_update, next: 0, _folder: folder }))
    }

    pub fn step(&mut self) -> Result<Step, String> {
        let lr = self.prepared.resolved.settings.train.lr;
        let mut watch = self.only_update.then(|| Watch { launches: true, ..Watch::default() });
        let clock = Instant::now();
        let loss = self.prepared.step(self.next, lr, watch.as_mut()).map_err(|error| error.to_string())?;
        let seconds = clock.elapsed().as_secs_f64();
        self.next += 1;
        let Some(watch) = watch else { return Ok(Step { seconds, loss }) };
        let plans = self.prepared.machine.plans();
        let update = |(plan, launch, _): &&(usize, usize, u64)| {
            plans[*plan].launches[*launch].label.starts_with(UPDATE)
        };
        let nanoseconds: u64 = watch.times.iter().filter(update).map(|(_, _, time)| time).sum();
        Ok(Step { seconds: nanoseconds as f64 * 1e-9, loss: f64::NAN })
    }

    pub fn costs(&self) -> Vec<Cost> {
        let plans = self.prepared.machine.plans();
        // The first plan is the step; the others evaluate.
        super::costs(&plans[..1], if self.only_update { UPDATE } else { "" })
    }
}

/// What a job trains, text and threads apart, and its vocabulary.
pub fn request(name: &str) -> Option<(Request, usize)> {
    let (_, vocab, model, optimizer, sets) = ROWS.iter().find(|row| row.0 == name)?;
    let request = Request {
        model: Some(model.to_string()),
        optimizer: Some(optimizer.to_string()),
        sets: COMMON.iter().chain(*sets).map(|set| set.to_string()).collect(),
        no_preset: true,
        ..Request::default()
    };
    Some((request, *vocab))
}

/// Every character of the vocabulary, then random ones.
fn text(vocab: usize) -> String {
    let mut stream = Stream::new(1, "bench", 0);
    let all = 0..vocab as u64;
    let random = (0..(vocab * REPEATS).max(100_000)).map(|_| stream.below(vocab as u64));
    // The code points lie in one block of assigned characters.
    all.chain(random).filter_map(|id| char::from_u32(FIRST + id as u32)).collect()
}

fn exported(prepared: &Prepared<'_>, folder: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut list = Vec::new();
    // Parameter by parameter: what is held here would count as the job's own memory.
    let mut weights = BufWriter::new(File::create(folder.join("weights.bin")).map_err(failed)?);
    let mut offset = 0;
    for bank in &prepared.programs.banks.banks {
        for (parameter, range) in bank.slices() {
            list.push(json!({ "name": parameter.path, "dims": parameter.dims, "offset": offset }));
            offset += range.len();
            let values = prepared.machine.read_state_part(&bank.state(), range);
            for value in values.map_err(|error| error.to_string())? {
                weights.write_all(&value.to_le_bytes()).map_err(failed)?;
            }
        }
    }
    weights.flush().map_err(failed)?;
    let (shape, seed) = (prepared.shape, prepared.resolved.settings.seed);
    let mut batches = Vec::new();
    for step in 0..EXPORTED {
        let batch = prepared.dataset.train_batch(seed, step, shape.batch, shape.window);
        let batch = batch.map_err(|error| error.to_string())?;
        let ids = batch.tokens.iter().chain(&batch.targets);
        batches.extend(ids.flat_map(|id| id.to_le_bytes()));
    }
    let list = json!({ "batch": shape.batch, "window": shape.window, "weights": list });
    let files = [("batches.bin", batches), ("list.json", list.to_string().into_bytes())];
    let write = |(name, bytes): (&str, Vec<u8>)| std::fs::write(folder.join(name), bytes);
    files.into_iter().try_for_each(write).map_err(failed)
}
