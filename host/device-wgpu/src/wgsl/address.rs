//! Index arithmetic as text: everything is u32 and wraps, so that a negative stride is its two's complement.

use plan::Affine;

/// `offset + sum of strides[i] * names[i]`; axes of extent 1 have no name in it.
pub fn affine(at: &Affine, dims: &[usize], names: &[String]) -> String {
    let mut terms = Vec::new();
    for ((stride, dim), name) in at.strides.iter().zip(dims).zip(names) {
        match (*stride as u32, *dim) {
            (0, _) | (_, 1) => {}
            (1, _) => terms.push(name.clone()),
            (stride, _) => terms.push(format!("{name} * {stride}u")),
        }
    }
    if at.offset != 0 || terms.is_empty() {
        terms.push(format!("{}u", at.offset as u32));
    }
    terms.join(" + ")
}

/// Lines that name the index along each axis of a flat, row-major index.
pub fn unravel(flat: &str, dims: &[usize], names: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut inner = 1;
    let outermost = dims.iter().position(|dim| *dim > 1).unwrap_or(0);
    for axis in (0..dims.len()).rev() {
        let extent = dims[axis];
        let name = &names[axis];
        let quotient = if inner == 1 { flat.to_string() } else { format!("{flat} / {inner}u") };
        let index = match (extent, axis == outermost) {
            (1, _) => "0u".to_string(),
            (_, true) => quotient,
            _ => format!("{quotient} % {extent}u"),
        };
        lines.push(format!("let {name} = {index};"));
        inner *= extent;
    }
    lines
}

/// Names of the axes of an index space.
pub fn axes(count: usize) -> Vec<String> {
    (0..count).map(|axis| format!("i{axis}")).collect()
}
