//! A dispatch as data, and the frame that every kernel's text has in common.

use std::fmt::Write;

use super::prelude;
use crate::memory::{Bound, Range};

/// Groups along one dimension that every adapter takes.
const MAX_GROUPS: usize = 65_535;

/// One kernel run: text, how many workgroups, and what it is bound to.
#[derive(Clone, Debug, PartialEq)]
pub struct Dispatch {
    /// Complete WGSL with the entry point `main`. Storage buffers are bindings 0 and up of group 0, a uniform with
    /// `words` comes last.
    pub source: String,
    pub groups: [u32; 3],
    pub ranges: Vec<Range>,
    /// Where each operand begins in its binding, in elements.
    pub words: Vec<u32>,
}

/// What a printer adds to the frame.
pub struct Kernel<'b> {
    pub bound: &'b Bound,
    /// Invocations of a workgroup.
    pub invocations: usize,
    /// Workgroups. The body sees the number of its own as `work`, and is skipped beyond the last.
    pub groups: usize,
    /// Declarations before the entry point.
    pub globals: String,
    /// Sees `work` and `lane`, the number of the invocation in its workgroup. All of a workgroup enter it or none.
    pub body: String,
}

impl Kernel<'_> {
    pub fn finish(self) -> Result<Dispatch, String> {
        let Kernel { bound, invocations, groups, globals, body } = self;
        let folded = fold(groups)?;
        let mut text = String::new();
        for binding in 0..bound.ranges.len() {
            line(
                &mut text,
                0,
                &format!("@group(0) @binding({binding}) var<storage, read_write> m{binding}: array<u32>;"),
            );
        }
        let quads = bound.places.len().div_ceil(4).max(1);
        line(&mut text, 0, &format!("struct Bases {{ words: array<vec4<u32>, {quads}> }}"));
        line(&mut text, 0, &format!("@group(0) @binding({}) var<uniform> bases: Bases;", bound.ranges.len()));
        text += &globals;
        line(&mut text, 0, &format!("@compute @workgroup_size({invocations})"));
        line(
            &mut text,
            0,
            "fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {",
        );
        let [x, y, z] = folded;
        let work = match (y, z) {
            (1, 1) => "group.x".to_string(),
            (_, 1) => format!("group.y * {x}u + group.x"),
            _ => format!("(group.z * {y}u + group.y) * {x}u + group.x"),
        };
        line(&mut text, 1, &format!("let work = {work};"));
        let has_idle = x as usize * y as usize * z as usize != groups;
        if has_idle {
            line(&mut text, 1, &format!("if work < {groups}u {{"));
        }
        for operand in 0..bound.places.len() {
            let component = ["x", "y", "z", "w"][operand % 4];
            line(&mut text, 1, &format!("let o{operand} = bases.words[{}].{component};", operand / 4));
        }
        text += &body;
        if has_idle {
            line(&mut text, 1, "}");
        }
        line(&mut text, 0, "}");
        prelude::add(&mut text);
        let mut words: Vec<u32> = bound.places.iter().map(|place| place.base).collect();
        words.resize(quads * 4, 0);
        Ok(Dispatch { source: text, groups: folded, ranges: bound.ranges.clone(), words })
    }
}

/// Workgroups over three dimensions.
fn fold(groups: usize) -> Result<[u32; 3], String> {
    let x = groups.clamp(1, MAX_GROUPS);
    let y = groups.div_ceil(x).clamp(1, MAX_GROUPS);
    let z = groups.div_ceil(x * y).max(1);
    if z > MAX_GROUPS || groups > u32::MAX as usize {
        return Err(format!("{groups} workgroups are too many"));
    }
    Ok([x as u32, y as u32, z as u32])
}

/// Appends an indented line.
pub fn line(text: &mut String, depth: usize, content: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{:width$}{content}", "", width = depth * 4);
}

/// Element `index` (text) of an operand, as the u32 that is stored.
pub fn element(bound: &Bound, operand: usize, index: &str) -> String {
    format!("m{}[o{operand} + {index}]", bound.places[operand].binding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_fold_within_the_limit_of_a_dimension() {
        for groups in [1, 65_535, 65_536, 200_000, 1 << 31] {
            let [x, y, z] = fold(groups).unwrap().map(|extent| extent as usize);
            assert!(x * y * z >= groups && x.max(y).max(z) <= MAX_GROUPS, "{groups}");
        }
        assert!(fold(1 << 33).is_err());
    }
}
