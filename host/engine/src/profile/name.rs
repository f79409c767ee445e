//! What launches are called in a profile: by the layer they belong to, and by the kernel they run.

use plan::{AttentionShape, CrossEntropy, DeltaShape, Launch, LaunchOp, Matrix, Plan, Template};

/// Kinds of launches.
pub const KINDS: [&str; 6] = ["products", "attention", "delta rule", "cross-entropy", "tiles", "scatter"];

/// Index in [`KINDS`].
pub fn kind(launch: &Launch) -> usize {
    match launch.op {
        LaunchOp::Gemm(_) => 0,
        LaunchOp::Attention(_) | LaunchOp::AttentionGrad(_) => 1,
        LaunchOp::DeltaRule(_) | LaunchOp::DeltaRuleGrad(_) => 2,
        LaunchOp::CrossEntropy(_) => 3,
        LaunchOp::Tile { .. } => 4,
        LaunchOp::ScatterAdd(_) => 5,
    }
}

/// The scope path up to the first number, `layers.3` of `layers.3.attention: Dot`; all of it where there is none.
pub fn layer(label: &str) -> String {
    let path = label.split_once(": ").map_or(label, |(path, _)| path);
    let mut parts = Vec::new();
    for part in path.split('.') {
        parts.push(part);
        if is_number(part) {
            break;
        }
    }
    parts.join(".")
}

/// The label with a star for every number of its path, so that equal layers have one: `layers.*.attention: Dot`.
pub fn pattern(label: &str) -> String {
    let (path, ops) = label.split_once(": ").unwrap_or((label, ""));
    let star = |part| if is_number(part) { "*" } else { part };
    let path: Vec<&str> = path.split('.').map(star).collect();
    if ops.is_empty() { path.join(".") } else { format!("{}: {ops}", path.join(".")) }
}

fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}

/// What is computed: `product 2048x512x128`, with `'` behind a transposed operand, or the kernel of the plan with its
/// index space, `rows 2048x128 #6`.
pub fn kernel(plan: &Plan, launch: &Launch) -> String {
    let by = |dims: &[usize]| dims.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
    match &launch.op {
        LaunchOp::Gemm(product) => {
            let mark = |name, matrix: &Matrix| {
                let transposed = matrix.col_stride != 1 && matrix.row_stride == 1;
                format!("{name}{}", if transposed { "'" } else { "" })
            };
            let batch: usize = product.batch.iter().map(|axis| axis.count).product();
            let times = if batch > 1 { format!("{batch} of ") } else { String::new() };
            let add = if product.c.is_some() { "+c" } else { "" };
            let size = by(&[product.m, product.n, product.k]);
            let what = if product.symmetric { "symmetric" } else { "product" };
            format!("{what} {times}{size} {}{}{add}", mark("a", &product.a), mark("b", &product.b))
        }
        LaunchOp::Tile { kernel, .. } => {
            let tile = &plan.kernels[*kernel];
            let shape = match tile.template {
                Template::Map => "map",
                Template::RowReduce { .. } => "rows",
                Template::ColReduce { .. } => "columns",
            };
            format!("{shape} {} #{kernel}", by(&tile.dims))
        }
        LaunchOp::Attention(launch) => attention("attention", &launch.shape),
        LaunchOp::AttentionGrad(launch) => attention("attention'", &launch.shape),
        LaunchOp::CrossEntropy(launch) => cross_entropy(launch),
        LaunchOp::DeltaRule(launch) => delta("delta rule", &launch.shape),
        LaunchOp::DeltaRuleGrad(launch) => delta("delta rule'", &launch.shape),
        LaunchOp::ScatterAdd(add) => format!("scatter {} rows into {}x{}", add.count, add.rows, add.width),
    }
}

/// `attention 2x8 of 256x256x64`: batch and heads, queries, keys, width; a prime for its derivative.
fn attention(name: &str, shape: &AttentionShape) -> String {
    let AttentionShape { batch, heads, queries, keys, width, .. } = *shape;
    format!("{name} {batch}x{heads} of {queries}x{keys}x{width}")
}

/// `cross-entropy 2048x512x32000`: tokens, width, vocabulary; behind a plus what it gives besides the losses.
fn cross_entropy(launch: &CrossEntropy) -> String {
    let CrossEntropy { tokens, width, vocabulary, .. } = *launch;
    let loss = if launch.loss.is_some() { "" } else { "'" };
    let (x, w) = launch.grad.map_or((false, false), |grad| (grad.ct_x.is_some(), grad.ct_w.is_some()));
    let cts = [(x, "+dx"), (w, "+dw")].map(|(is_given, name)| if is_given { name } else { "" }).concat();
    format!("cross-entropy{loss} {tokens}x{width}x{vocabulary} {cts}").trim_end().to_string()
}

/// `delta rule 2x4 of 2048x64x64`: batch and heads, tokens, widths of keys and values; a prime for its derivative.
fn delta(name: &str, shape: &DeltaShape) -> String {
    let DeltaShape { batch, heads, tokens, width, value_width } = *shape;
    format!("{name} {batch}x{heads} of {tokens}x{width}x{value_width}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_grouped_by_layer() {
        for (label, of, starred) in [
            ("layers.3.attention: Dot", "layers.3", "layers.*.attention: Dot"),
            ("layers.12: Mul and 6 more", "layers.12", "layers.*: Mul and 6 more"),
            ("head.norm: Sum", "head.norm", "head.norm: Sum"),
            ("top level: Gather", "top level", "top level: Gather"),
            ("memory.0.levels.1: Sub", "memory.0", "memory.*.levels.*: Sub"),
        ] {
            assert_eq!((layer(label).as_str(), pattern(label).as_str()), (of, starred));
        }
    }
}
