//! The text of a graph: one line a node, complete and readable back.
//!
//! ```text
//! input tokens i32[2, 4]
//! state weight f32[8, 3]
//! output loss f32[]
//! %0 = State() [0] {} : f32[8, 3] @
//! %1 = Sum(%0) [0, 1] {} : f32[1, 1] @layers.0
//! ```
//!
//! Square brackets hold the integer attributes, braces the float ones, `@` the scope path; a clone number follows the
//! type as `~3`. Bodies of regions come first, each between `body 0 {` and `}`. White space in a name is written
//! `\u{20}`, so that a name stays one word whatever a plugin called it.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use ops::{DType, Op};

use crate::{Graph, NodeId, Ty};

impl Display for Graph {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (kind, list) in [("input", &self.inputs), ("state", &self.states), ("output", &self.outputs)] {
            for decl in list {
                writeln!(f, "{kind} {} {}", escaped(&decl.name), decl.ty)?;
            }
        }
        for (index, body) in self.bodies.iter().enumerate() {
            write!(f, "body {index} {{\n{body}}}\n")?;
        }
        for id in self.ids() {
            let node = self.node(id);
            let inputs: Vec<String> = node.inputs.iter().map(NodeId::to_string).collect();
            let floats: Vec<String> = node.floats.iter().map(|value| format!("{value:?}")).collect();
            write!(f, "{id} = {}({}) {:?} ", node.op, inputs.join(", "), node.ints)?;
            write!(f, "{{{}}} : {} ", floats.join(", "), node.ty)?;
            if node.clone != 0 {
                write!(f, "~{} ", node.clone)?;
            }
            writeln!(f, "@{}", escaped(self.scope_path(id)))?;
        }
        Ok(())
    }
}

/// Reads what `Display` prints. The error names the line.
pub fn parse(text: &str) -> Result<Graph, String> {
    let mut lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
    parse_block(&mut lines, 0)
}

/// Deepest nesting of bodies that is read.
const MAX_DEPTH: usize = 64;

/// Lines up to the end, or to the brace that closes a body at `depth`.
fn parse_block(lines: &mut dyn Iterator<Item = (usize, &str)>, depth: usize) -> Result<Graph, String> {
    let mut graph = Graph::default();
    while let Some((number, line)) = lines.next() {
        let at = |reason: String| format!("line {}: {reason}: {line}", number + 1);
        if line == "}" && depth > 0 {
            return Ok(graph);
        }
        if let Some(index) = line.strip_prefix("body ").and_then(|rest| rest.strip_suffix(" {")) {
            if index != graph.bodies.len().to_string() || depth == MAX_DEPTH {
                return Err(at(format!("expected body {}, at most {MAX_DEPTH} deep", graph.bodies.len())));
            }
            graph.bodies.push(Arc::new(parse_block(lines, depth + 1)?));
            continue;
        }
        parse_line(&mut graph, line).map_err(at)?;
    }
    if depth > 0 { Err("the last body is not closed".into()) } else { Ok(graph) }
}

fn parse_line(graph: &mut Graph, line: &str) -> Result<(), String> {
    if line.starts_with('%') {
        return parse_node(graph, line);
    }
    let (kind, rest) = line.split_once(' ').ok_or("expected `input`, `state`, `output` or a node")?;
    let (name, ty) = rest.split_once(' ').ok_or("expected a name and a type")?;
    let decl = crate::Decl { name: unescaped(name)?, ty: parse_ty(ty)? };
    match kind {
        "input" => graph.inputs.push(decl),
        "state" => graph.states.push(decl),
        "output" => graph.outputs.push(decl),
        _ => return Err(format!("unknown declaration {kind:?}")),
    }
    Ok(())
}

fn parse_node(graph: &mut Graph, line: &str) -> Result<(), String> {
    let (id, rest) = line.split_once(" = ").ok_or("expected ` = `")?;
    let (name, rest) = rest.split_once('(').ok_or("expected `(`")?;
    let (inputs, rest) = rest.split_once(") [").ok_or("expected `) [`")?;
    let (ints, rest) = rest.split_once("] {").ok_or("expected `] {`")?;
    let (floats, rest) = rest.split_once("} : ").ok_or("expected `} : `")?;
    let (ty, scope) = rest.split_once(" @").ok_or("expected ` @`")?;
    let (ty, clone) = ty.split_once(" ~").unwrap_or((ty, "0"));
    let clone = clone.parse().map_err(|_| format!("{clone:?} is not a clone number"))?;
    let op = Op::from_name(name).ok_or_else(|| format!("unknown op {name:?}"))?;
    let inputs = items(inputs, parse_id)?;
    let ints = items(ints, |item| item.parse::<i64>().map_err(|e| e.to_string()))?;
    let floats = items(floats, |item| item.parse::<f64>().map_err(|e| e.to_string()))?;
    let ty = parse_ty(ty)?;
    let new = graph.in_scope(&unescaped(scope)?, |graph| {
        graph.in_clone(clone, |graph| graph.append(op, &inputs, &ints, &floats))
    })?;
    if new != parse_id(id)? {
        return Err(format!("expected {new}"));
    }
    if *graph.ty(new) != ty {
        return Err(format!("infers as {}", graph.ty(new)));
    }
    if matches!(op, Op::Input | Op::State) {
        let list = if op == Op::Input { &graph.inputs } else { &graph.states };
        let name = list[ints[0] as usize].name.clone();
        graph.names.insert(new, name);
    }
    Ok(())
}

/// A name as one word of one line.
fn escaped(name: &str) -> Cow<'_, str> {
    let special = |c: char| c.is_whitespace() || c.is_control() || c == '\\';
    if !name.contains(special) {
        return Cow::Borrowed(name);
    }
    let escape = |c: char| if special(c) { c.escape_unicode().to_string() } else { c.to_string() };
    Cow::Owned(name.chars().map(escape).collect())
}

fn unescaped(word: &str) -> Result<String, String> {
    let mut parts = word.split('\\');
    let mut name = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let (code, rest) =
            part.strip_prefix("u{").and_then(|part| part.split_once('}')).ok_or("expected `\\u{...}`")?;
        let character = u32::from_str_radix(code, 16).ok().and_then(char::from_u32);
        name.push(character.ok_or_else(|| format!("{code:?} is not a character"))?);
        name += rest;
    }
    Ok(name)
}

fn items<T>(list: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty()).map(parse).collect()
}

fn parse_id(item: &str) -> Result<NodeId, String> {
    let number = item.strip_prefix('%').and_then(|digits| digits.parse().ok());
    number.map(NodeId).ok_or_else(|| format!("{item:?} is not a node"))
}

fn parse_ty(text: &str) -> Result<Ty, String> {
    let (dtype, dims) = text.trim().split_once('[').ok_or("expected a type")?;
    let dtype = DType::from_name(dtype).ok_or_else(|| format!("unknown dtype {dtype:?}"))?;
    let dims = dims.strip_suffix(']').ok_or("expected `]`")?;
    let dims = items(dims, |item| item.parse::<usize>().map_err(|e| e.to_string()))?;
    Ok(Ty { dtype, dims })
}
