//! Runs a case everywhere, and says where it went wrong.

use compiler::PASSES;
use graph::interp::Tensor;

use super::{Case, Tolerance};
use crate::devices::Entry;
use crate::replay::{Replay, prepared};

/// Half a unit in the last place of 1.
const HALF_ULP: f64 = 5.960_464_477_539_063e-8;

/// Runs one case on all entries of a kind of device. Returns the largest error as a part of what is allowed; a case that
/// fails says its op and seed, shapes and the worst element, and ends with the graph.
pub fn check(case: &Case, entries: &[Entry]) -> Result<f64, String> {
    outcome(case, entries).map_err(|what| {
        let inputs = case.graph.inputs.iter().map(|decl| format!("{} {}", decl.name, decl.ty));
        let inputs = inputs.collect::<Vec<String>>().join(", ");
        format!("{}: {what}\nallowed for: {}\ninputs {inputs}\n{}", case.label, case.reason, case.graph)
    })
}

fn outcome(case: &Case, entries: &[Entry]) -> Result<f64, String> {
    if let Some(error) = case.graph.errors.first() {
        return Err(format!("the case is not a program: {error}"));
    }
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(0.0) };
    let expected = run(Ok(Replay::interpreter(&case.graph)), case)?;
    let on = |entry: &Entry, disabled: &[&str]| {
        let device = (entry.open)().ok_or_else(|| format!("{} is not there", entry.name))?;
        let set = prepared(&case.graph, &(entry.caps)(), disabled);
        run(set.and_then(|set| Replay::loaded(&case.graph, device, set)), case)
            .map_err(|error| format!("{} without {disabled:?}: {error}", entry.name))
    };
    let results = on(first, &[])?;
    let of_interpreter = |results: &[Tensor]| compare(case, &expected, results, first.rounds_freely);
    let error = of_interpreter(&results).map_err(|what| format!("{}: {what}", first.name))?;
    for entry in &entries[1..] {
        same_bits(case, &results, &on(entry, &[])?, f64::to_bits)
            .map_err(|what| format!("{} against {}: {what}", entry.name, first.name))?;
    }
    let optional: Vec<&str> = PASSES.iter().filter(|pass| pass.optional).map(|pass| pass.name).collect();
    // Each pass alone has its turn, and all of them together each time. Simplifying keeps bits up to the sign of a zero.
    let one = [optional[case.seed as usize % optional.len()]];
    let variants: &[&[&str]] = match first.rounds_freely {
        false => &[&one, &optional],
        // What can be said of these is little, and each compiles all kernels anew.
        true if case.seed.is_multiple_of(4) => &[&one],
        true => &[],
    };
    for disabled in variants.iter().copied() {
        let bits = if disabled.contains(&"simplify") { |x: f64| (x + 0.0).to_bits() } else { f64::to_bits };
        let others = on(last, disabled)?;
        let outcome = match last.rounds_freely {
            true => of_interpreter(&others).map(|_| ()),
            false => same_bits(case, &results, &others, bits),
        };
        outcome.map_err(|what| format!("{} without {disabled:?}: {what}", last.name))?;
    }
    Ok(error)
}

/// Outputs, then States. A case with States runs twice, and shows both runs.
fn run(replay: Result<Replay, String>, case: &Case) -> Result<Vec<Tensor>, String> {
    let mut replay = replay?;
    for (index, state) in case.states.iter().enumerate() {
        replay.write_state(index, state)?;
    }
    let mut results = Vec::new();
    for _ in 0..1 + usize::from(!case.states.is_empty()) {
        results.extend(replay.run(&case.inputs)?);
        results.extend(replay.states()?);
    }
    Ok(results)
}

/// The largest error as a part of what is allowed.
fn compare(case: &Case, expected: &[Tensor], actual: &[Tensor], rounds_freely: bool) -> Result<f64, String> {
    let mut largest = 0.0f64;
    for (index, (want, got)) in expected.iter().zip(actual).enumerate() {
        let is_float = want.ty.dtype.is_float();
        let stated = match case.tolerances[index % case.tolerances.len()] {
            Tolerance::Ulps(count) if rounds_freely => Tolerance::Ulps(3.0 * count),
            stated => stated,
        };
        let tolerance = if is_float { stated } else { Tolerance::Exact };
        let finite = want.data.iter().filter(|x| x.is_finite());
        let scale = finite.fold(1.0f64, |scale, x| scale.max(x.abs()));
        let errors = want.data.iter().zip(&got.data).map(|(want, got)| {
            part_of_allowed(*want, *got, is_float, allowed(tolerance, *want, scale, case.terms))
        });
        let worst =
            errors.enumerate().fold((0, 0.0), |worst, next| if next.1 > worst.1 { next } else { worst });
        let (element, error) = worst;
        if error > 1.0 {
            let (name, ty) = (named(case, index), &want.ty);
            let (want, got) = (want.data[element], got.data[element]);
            return Err(format!(
                "{name} {ty}, element {element}: {got:?} for {want:?}, {error:.3} of {tolerance:?}"
            ));
        }
        largest = largest.max(error);
    }
    Ok(largest)
}

fn allowed(tolerance: Tolerance, want: f64, scale: f64, terms: usize) -> f64 {
    match tolerance {
        Tolerance::Exact => 0.0,
        Tolerance::Ulps(count) => count * ulp(want),
        Tolerance::Terms => HALF_ULP * scale * (terms + 4) as f64,
        Tolerance::Scaled(part) => part * scale,
    }
}

/// Infinite where only one of the numbers is finite, or only one is a NaN.
fn part_of_allowed(want: f64, got: f64, is_float: bool, allowed: f64) -> f64 {
    let nearest = if is_float { f64::from(want as f32) } else { want };
    if nearest == got && (allowed == 0.0 || !got.is_finite()) {
        return 0.0;
    }
    if nearest.is_nan() && got.is_nan() {
        return 0.0;
    }
    match (want - got).abs() / allowed {
        part if part.is_nan() => f64::INFINITY,
        part => part,
    }
}

/// Distance of two f32 around a number. Devices may round subnormal numbers to zero.
fn ulp(x: f64) -> f64 {
    let nearest = x.abs() as f32;
    if !nearest.is_normal() {
        return f64::from(f32::MIN_POSITIVE);
    }
    f64::from(nearest) - f64::from(f32::from_bits(nearest.to_bits() - 1))
}

fn same_bits(
    case: &Case,
    expected: &[Tensor],
    actual: &[Tensor],
    bits: fn(f64) -> u64,
) -> Result<(), String> {
    for (index, (want, got)) in expected.iter().zip(actual).enumerate() {
        let differs = |(a, b): (&f64, &f64)| bits(*a) != bits(*b);
        if let Some(element) = want.data.iter().zip(&got.data).position(differs) {
            let (name, ty) = (named(case, index), &want.ty);
            let (want, got) = (want.data[element], got.data[element]);
            return Err(format!("{name} {ty}, element {element}: other bits, {got:?} for {want:?}"));
        }
    }
    Ok(())
}

/// Name of a result of [`run`].
fn named(case: &Case, index: usize) -> String {
    let one_run = case.tolerances.len();
    let (run, index) = (index / one_run, index % one_run);
    let outputs = &case.graph.outputs;
    let decl = outputs.get(index).unwrap_or_else(|| &case.graph.states[index - outputs.len()]);
    if case.states.is_empty() { decl.name.clone() } else { format!("{} of run {run}", decl.name) }
}
