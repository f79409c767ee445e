//! Golden values: every case of a folder, computed here and compared with what the folder says.
//!
//! A case is a JSON file with a formula and a safetensors file with numbers (`file`). Its name chooses a family
//! (`families`), which builds the computation with the façade that plugin authors call, or runs the engine's own code.
//! All shapes and hyper-parameters come from the files, so a new case of a known family needs no code.

mod attention;
mod clip;
mod cms;
mod elementwise;
mod families;
mod file;
mod layer;
mod loss;
mod matrix;
mod model;
mod norm;
mod optimizer;
mod plans;
mod random;
mod recurrence;
mod report;
mod schedule;
mod second_order;
mod teach;
mod trace;

use std::path::Path;

use device_wgpu::Wgpu;
use engine::plugins::Registry;
use graph::Graph;

pub use report::{Line, Report, Verdict, heading};

use crate::devices;
use crate::replay::{Replay, prepared};
use families::Family;
use file::{Case, Role};
use report::{Failure, Measure};

/// Where a case is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// In f64.
    Interpreter,
    /// Compiled, in f32.
    Cpu,
    /// Compiled, in f32, on the first adapter, software too.
    Wgpu,
}

/// Threads of the CPU device: enough that work is divided.
const THREADS: usize = 2;

impl Device {
    pub const ALL: [Device; 3] = [Device::Interpreter, Device::Cpu, Device::Wgpu];

    /// Those that this machine has.
    pub fn available() -> Vec<Device> {
        let is_there = |device: &Device| *device != Device::Wgpu || devices::wgpu().is_some();
        Device::ALL.into_iter().filter(is_there).collect()
    }

    pub fn name(self) -> &'static str {
        match self {
            Device::Interpreter => "interpreter",
            Device::Cpu => "cpu",
            Device::Wgpu => "wgpu",
        }
    }

    pub fn from_name(name: &str) -> Option<Device> {
        Device::ALL.into_iter().find(|device| device.name() == name)
    }

    fn load(self, graph: &Graph) -> Result<Replay, Stop> {
        match self {
            Device::Interpreter => Ok(Replay::interpreter(graph)),
            Device::Cpu => Replay::cpu(graph, &[], THREADS).map_err(Stop::Broken),
            Device::Wgpu => {
                let device = devices::wgpu().ok_or_else(|| Stop::Unsupported("no adapter".into()))?;
                let set = prepared(graph, &Wgpu::caps(), &[]);
                set.and_then(|set| Replay::loaded(graph, device, set)).map_err(Stop::Broken)
            }
        }
    }

    fn tolerance(self, case: &Case) -> f64 {
        match self {
            Device::Interpreter => case.tolerance_f64,
            Device::Cpu | Device::Wgpu => case.tolerance_f32,
        }
    }
}

/// A computed tensor: extents, and elements in row-major order.
struct Value {
    dims: Vec<usize>,
    data: Vec<f64>,
}

/// Computed tensors by the names that the case gives them.
type Values = Vec<(String, Value)>;

/// Why a case has no values.
enum Stop {
    /// It needs something that is not there.
    Unsupported(String),
    /// Something is wrong, with the file or with us.
    Broken(String),
}

/// Runs every case of a folder on each of the devices, telling each line as soon as it is known. `plugins` is where
/// optimizers are looked for.
pub fn run(folder: &Path, devices: &[Device], plugins: &Registry, mut tell: impl FnMut(&Line)) -> Report {
    let mut report = Report::default();
    let mut add = |line: Line| {
        tell(&line);
        report.lines.push(line);
    };
    let names = match file::names(folder) {
        Ok(names) => names,
        Err(reason) => {
            add(Line::of(&folder.display().to_string(), None, Verdict::broken(reason)));
            Vec::new()
        }
    };
    for name in names {
        let case = match file::read(folder, &name) {
            Ok(case) => case,
            Err(reason) => {
                add(Line::of(&name, None, Verdict::broken(reason)));
                continue;
            }
        };
        let Some(family) = families::of(&name) else {
            let why = "no runner for this family".to_string();
            add(Line::of(&name, None, Verdict::Unsupported(why)));
            continue;
        };
        for device in devices {
            let verdict = match compute(family, &case, *device, plugins) {
                Ok(values) => judge(&case, &values, device.tolerance(&case)),
                Err(Stop::Unsupported(why)) => Verdict::Unsupported(why),
                Err(Stop::Broken(reason)) => Verdict::broken(reason),
            };
            add(Line::of(&name, Some(*device), verdict));
        }
    }
    report
}

fn compute(family: Family, case: &Case, device: Device, plugins: &Registry) -> Result<Values, Stop> {
    match family {
        Family::Traced(build) => trace::run(build, case, device),
        Family::Optimizer(name) => optimizer::run(name, case, device, plugins),
        Family::Model(run) => run(case, device, plugins),
        Family::Schedule => schedule::run(case, device),
    }
}

/// Compares every tensor that has a value; those without one are named.
fn judge(case: &Case, values: &[(String, Value)], tolerance: f64) -> Verdict {
    let mut worst = Measure { error: 0.0, tolerance, missing: Vec::new() };
    let mut place = None;
    let mut compared = 0;
    for (name, wanted) in case.wanted() {
        let mut ways = values.iter().filter(|(known, _)| known == name).peekable();
        if ways.peek().is_none() {
            worst.missing.push(name.to_string());
        }
        for (_, value) in ways {
            if value.dims != wanted.dims || value.data.len() != wanted.data.len() {
                return Verdict::broken(format!(
                    "{name} is {:?}, the case says {:?}",
                    value.dims, wanted.dims
                ));
            }
            compared += 1;
            for (index, (got, want)) in value.data.iter().zip(&wanted.data).enumerate() {
                let error = difference(*got, *want, wanted.integer);
                if error > worst.error {
                    worst.error = error;
                    place = Some((name, index, *got, *want));
                }
            }
        }
    }
    if compared == 0 {
        return Verdict::broken("nothing of the case was compared".into());
    }
    match place {
        Some((name, index, got, want)) if worst.error > tolerance => {
            let element = unravel(index, &case.tensors[name].dims);
            let text = format!("{name}{element:?} is {got:e}, should be {want:e}");
            Verdict::Fail(Failure { reason: text, measure: Some(worst) })
        }
        _ => Verdict::Pass(worst),
    }
}

/// |got - want| / (1 + |want|); infinite for NaN and for words that differ.
fn difference(got: f64, want: f64, exactly: bool) -> f64 {
    let error = (got - want).abs() / (1.0 + want.abs());
    if error.is_nan() || (exactly && got != want) { f64::INFINITY } else { error }
}

/// Position of an element along each axis.
fn unravel(mut index: usize, dims: &[usize]) -> Vec<usize> {
    let mut place: Vec<usize> = dims
        .iter()
        .rev()
        .map(|dim| {
            let here = index % dim;
            index /= dim;
            here
        })
        .collect();
    place.reverse();
    place
}

impl Case {
    /// What is to be compared, in the order of names.
    fn wanted(&self) -> impl Iterator<Item = (&str, &file::Golden)> {
        let all = self.tensors.iter().map(|(name, golden)| (name.as_str(), golden));
        all.filter(|(_, golden)| matches!(golden.role, Role::Output | Role::Gradient))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_relative_to_one_plus_the_value() {
        assert_eq!(difference(2.0, 3.0, false), 0.25);
        assert_eq!(difference(0.5, 0.0, false), 0.5);
        assert_eq!(difference(f64::NAN, 0.0, false), f64::INFINITY);
        assert_eq!(difference(f64::INFINITY, 0.0, false), f64::INFINITY);
        assert_eq!(difference(4294967295.0, 4294967294.0, true), f64::INFINITY);
        assert_eq!(difference(7.0, 7.0, true), 0.0);
    }

    #[test]
    fn every_way_to_a_result_is_compared() {
        let wanted = file::Golden { role: Role::Output, integer: false, dims: vec![1], data: vec![1.0] };
        let case = Case {
            scalars: serde_json::Map::new(),
            tolerance_f64: 1e-10,
            tolerance_f32: 1e-5,
            tensors: [("y".to_string(), wanted)].into(),
        };
        let way = |value| ("y".to_string(), Value { dims: vec![1], data: vec![value] });
        assert!(matches!(judge(&case, &[way(1.0), way(1.0)], 1e-10), Verdict::Pass(_)));
        assert!(matches!(judge(&case, &[way(1.0), way(3.0)], 1e-10), Verdict::Fail(_)));
        assert!(matches!(judge(&case, &[way(3.0), way(1.0)], 1e-10), Verdict::Fail(_)));
        assert!(matches!(judge(&case, &[], 1e-10), Verdict::Fail(_)));
    }

    #[test]
    fn an_element_is_named_by_its_place() {
        assert_eq!(unravel(17, &[2, 3, 4]), [1, 1, 1]);
        assert_eq!(unravel(0, &[]), [0usize; 0]);
    }
}
