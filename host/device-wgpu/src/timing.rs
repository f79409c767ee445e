//! The time of each launch from the adapter's own clock: one submission, a pass for each launch.

use std::time::Instant;

use wgpu::{
    BufferUsages, CommandEncoder, ComputePassDescriptor, ComputePassTimestampWrites, Features, MapMode,
    QUERY_SET_MAX_QUERIES, QUERY_SIZE, QuerySet, QuerySetDescriptor, QueryType,
};

use crate::gpu::{Gpu, buffer};
use crate::step::Step;

/// Launches whose begin and end one set of queries holds.
const LAUNCHES: usize = QUERY_SET_MAX_QUERIES as usize / 2;

/// Runs steps, those of one launch together, and tells the nanoseconds of each launch. Where the adapter has no clock that
/// it offers, each launch is a submission of its own, whose time is in it.
pub fn timed(gpu: &Gpu, steps: &[&Step], sink: &mut dyn FnMut(usize, u64)) -> Result<(), (usize, String)> {
    let of_launches: Vec<&[&Step]> = steps.chunk_by(|step, next| step.launch == next.launch).collect();
    if !gpu.device.features().contains(Features::TIMESTAMP_QUERY) {
        return of_launches.into_iter().try_for_each(|steps| one_by_one(gpu, steps, sink));
    }
    for part in of_launches.chunks(LAUNCHES) {
        together(gpu, part, sink).map_err(|reason| (part[0][0].launch, reason))?;
    }
    Ok(())
}

fn one_by_one(gpu: &Gpu, steps: &[&Step], sink: &mut dyn FnMut(usize, u64)) -> Result<(), (usize, String)> {
    let clock = Instant::now();
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    encode(&mut encoder, steps, None);
    gpu.queue.submit([encoder.finish()]);
    gpu.wait().map_err(|reason| (steps[0].launch, reason))?;
    sink(steps[0].launch, clock.elapsed().as_nanos() as u64);
    Ok(())
}

fn together(gpu: &Gpu, launches: &[&[&Step]], sink: &mut dyn FnMut(usize, u64)) -> Result<(), String> {
    let count = launches.len() as u32 * 2;
    let bytes = u64::from(count * QUERY_SIZE);
    let described =
        |usage| buffer(gpu, "timestamps", bytes as usize, usage).map_err(|error| error.to_string());
    let resolved = described(BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC)?;
    let staging = described(BufferUsages::COPY_DST | BufferUsages::MAP_READ)?;
    let descriptor = QuerySetDescriptor { label: None, ty: QueryType::Timestamp, count };
    let queries =
        gpu.checked(|device| device.create_query_set(&descriptor)).map_err(|error| error.to_string())?;
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    for (index, steps) in launches.iter().enumerate() {
        encode(&mut encoder, steps, Some((&queries, index as u32 * 2)));
    }
    encoder.resolve_query_set(&queries, 0..count, &resolved, 0);
    encoder.copy_buffer_to_buffer(&resolved, 0, &staging, 0, bytes);
    gpu.queue.submit([encoder.finish()]);
    // A failure shows in the wait.
    staging.map_async(MapMode::Read, .., |_| {});
    gpu.wait()?;
    let view = staging.get_mapped_range(..).map_err(|error| error.to_string())?;
    let words = view.chunks_exact(QUERY_SIZE as usize);
    let ticks: Vec<u64> =
        words.map(|word| word.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))).collect();
    let period = f64::from(gpu.queue.get_timestamp_period());
    for (steps, pair) in launches.iter().zip(ticks.chunks_exact(2)) {
        sink(steps[0].launch, (pair[1].saturating_sub(pair[0]) as f64 * period) as u64);
    }
    Ok(())
}

fn encode(encoder: &mut CommandEncoder, steps: &[&Step], queries: Option<(&QuerySet, u32)>) {
    let timestamp_writes = queries.map(|(query_set, first)| ComputePassTimestampWrites {
        query_set,
        beginning_of_pass_write_index: Some(first),
        end_of_pass_write_index: Some(first + 1),
    });
    let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor { label: None, timestamp_writes });
    steps.iter().for_each(|step| step.encode(&mut pass));
}
