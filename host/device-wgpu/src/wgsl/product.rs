//! Matrix products, batched, over strides, in two forms that add the terms of an element in order.
//!
//! Graphics hardware wants tiles of both operands in workgroup memory; a software adapter runs faster when each
//! invocation reads its operands directly and keeps a larger part of the result, because there a barrier costs more
//! than a load. Which tile a product gets depends on its extents alone.

use plan::{Gemm, GemmBatch, Matrix};

use super::source::{Dispatch, Kernel, line};
use super::{Operands, address, scalar};
use crate::memory::Bound;

/// Which form products take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tiles {
    /// Every invocation reads its operands itself.
    Direct,
    /// Operands pass through workgroup memory.
    Shared,
}

/// Part of the result that one invocation keeps, and how the invocations of a workgroup lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// Rows and columns of an invocation.
    each: [usize; 2],
    /// Invocations down and across.
    threads: [usize; 2],
    /// Terms that lie in workgroup memory at a time; none where operands are read directly.
    depth: Option<usize>,
}

impl Shape {
    fn rows(self) -> usize {
        self.each[0] * self.threads[0]
    }

    fn columns(self) -> usize {
        self.each[1] * self.threads[1]
    }

    fn of(gemm: &Gemm, tiles: Tiles) -> Shape {
        let (m, n) = (gemm.m, gemm.n);
        if tiles == Tiles::Direct || m <= 4 || n <= 4 {
            return Shape::direct(m, n);
        }
        let points: usize = gemm.batch.iter().map(|axis| axis.count).product();
        let groups = |rows: usize, columns: usize| m.div_ceil(rows) * n.div_ceil(columns) * points;
        let shared = |each, threads, depth| Shape { each, threads, depth: Some(depth) };
        // A larger tile reads less, but all parts of the hardware should have one.
        if m >= 128 && n >= 128 && groups(128, 128) >= 64 {
            return shared([8, 8], [16, 16], 8);
        }
        match (m, n) {
            (..=16, _) => shared([4, 4], [4, 16], 16),
            (_, ..=16) => shared([4, 4], [16, 4], 16),
            _ if m > 32 && n > 32 && groups(64, 64) >= 32 => shared([4, 4], [16, 16], 16),
            _ => shared([4, 4], [8, 8], 16),
        }
    }

    /// The least work, counting a load as four multiply-adds and what falls outside the result as work.
    fn direct(m: usize, n: usize) -> Shape {
        let sizes = [1, 2, 4, 8];
        let shapes = sizes.into_iter().flat_map(|rows| {
            let columns = sizes.into_iter();
            columns.flat_map(move |columns| {
                let down = [1, 2, 4, 8, 16, 32, 64].into_iter();
                down.map(move |down| Shape { each: [rows, columns], threads: [down, 64 / down], depth: None })
            })
        });
        let work = |shape: &Shape| {
            let [rows, columns] = shape.each;
            let padded = m.next_multiple_of(shape.rows()) * n.next_multiple_of(shape.columns());
            // In 64ths, so that it is whole.
            (padded * (64 + 4 * 64 * (rows + columns) / (rows * columns)), shape.threads[0].abs_diff(8))
        };
        shapes.min_by_key(work).unwrap_or(Shape { each: [1, 1], threads: [1, 64], depth: None })
    }
}

/// The dispatch of a product. Operands are a, b, the result, and what is added.
pub fn print(gemm: &Gemm, tiles: Tiles, operands: &Operands) -> Result<Dispatch, String> {
    let bound = operands.bind(0)?;
    let shape = Shape::of(gemm, tiles);
    let [across, down] = [gemm.n.div_ceil(shape.columns()), gemm.m.div_ceil(shape.rows())];
    let points: usize = gemm.batch.iter().map(|axis| axis.count).product();
    let mut body = String::new();
    let text = &mut body;
    line(text, 1, &format!("let tile = work % {}u;", across * down));
    line(text, 1, &format!("let point = work / {}u;", across * down));
    starts(text, gemm);
    let [each_rows, each_columns] = shape.each;
    line(text, 1, &format!("let first_row = tile / {across}u * {}u;", shape.rows()));
    line(text, 1, &format!("let first_column = tile % {across}u * {}u;", shape.columns()));
    line(text, 1, &format!("let down = lane / {}u;", shape.threads[1]));
    line(text, 1, &format!("let across = lane % {}u;", shape.threads[1]));
    for i in 0..each_rows {
        line(text, 1, &format!("let row{i} = first_row + down + {}u;", i * shape.threads[0]));
    }
    for j in 0..each_columns {
        line(text, 1, &format!("let column{j} = first_column + across + {}u;", j * shape.threads[1]));
    }
    for (i, j) in pairs(shape) {
        line(text, 1, &format!("var t{i}_{j} = 0.0f;"));
    }
    let globals = match shape.depth {
        None => {
            direct(text, gemm, shape, &bound);
            String::new()
        }
        Some(depth) => shared(text, gemm, shape, depth, &bound),
    };
    results(text, gemm, shape, &bound);
    let invocations = shape.threads[0] * shape.threads[1];
    Kernel { bound: &bound, invocations, groups: across * down * points, globals, body }.finish()
}

fn pairs(shape: Shape) -> impl Iterator<Item = (usize, usize)> {
    (0..shape.each[0]).flat_map(move |i| (0..shape.each[1]).map(move |j| (i, j)))
}

/// Where each matrix begins at this point of the batch.
fn starts(text: &mut String, gemm: &Gemm) {
    let counts: Vec<usize> = gemm.batch.iter().map(|axis| axis.count).collect();
    let names = address::axes(counts.len());
    address::unravel("point", &counts, &names).iter().for_each(|content| line(text, 1, content));
    let start = |operand: usize, stride: fn(&GemmBatch) -> usize| {
        let strides = gemm.batch.iter().map(|axis| stride(axis) as i64).collect();
        let at = address::affine(&plan::Affine::new(0, strides), &counts, &names);
        format!("let start{operand} = o{operand} + {at};")
    };
    line(text, 1, &start(0, |axis| axis.a));
    line(text, 1, &start(1, |axis| axis.b));
    line(text, 1, &start(2, |axis| axis.out));
    if gemm.c.is_some() {
        line(text, 1, &start(3, |axis| axis.c));
    }
}

fn read(bound: &Bound, operand: usize, index: &str) -> String {
    format!("bitcast<f32>(m{}[{index}])", bound.places[operand].binding)
}

/// Rows and columns beyond the result repeat the last, and are not written.
fn direct(text: &mut String, gemm: &Gemm, shape: Shape, bound: &Bound) {
    let [rows, columns] = shape.each;
    let Gemm { m, n, k, a, b, .. } = gemm;
    for i in 0..rows {
        line(text, 1, &format!("let a{i} = start0 + min(row{i}, {}u) * {}u;", m - 1, a.row_stride));
    }
    for j in 0..columns {
        line(text, 1, &format!("let b{j} = start1 + min(column{j}, {}u) * {}u;", n - 1, b.col_stride));
    }
    line(text, 1, &format!("for (var k = 0u; k < {k}u; k++) {{"));
    for i in 0..rows {
        line(text, 2, &format!("let x{i} = {};", read(bound, 0, &format!("a{i} + k * {}u", a.col_stride))));
    }
    for j in 0..columns {
        line(text, 2, &format!("let y{j} = {};", read(bound, 1, &format!("b{j} + k * {}u", b.row_stride))));
    }
    for (i, j) in pairs(shape) {
        line(text, 2, &format!("t{i}_{j} += x{i} * y{j};"));
    }
    line(text, 1, "}");
}

/// Terms beyond the last and what lies outside an operand are zeros in workgroup memory.
fn shared(text: &mut String, gemm: &Gemm, shape: Shape, depth: usize, bound: &Bound) -> String {
    let [rows, columns] = shape.each;
    let (tile_rows, tile_columns) = (shape.rows(), shape.columns());
    line(text, 1, &format!("for (var k = 0u; k < {}u; k += {depth}u) {{", gemm.k));
    let Gemm { m, n, a, b, .. } = *gemm;
    fill(
        text,
        &Side {
            name: "left",
            operand: 0,
            extent: m,
            first: "first_row",
            tile: tile_rows,
            stride: a.row_stride,
            term_stride: a.col_stride,
        },
        gemm.k,
        depth,
        shape,
        bound,
    );
    fill(
        text,
        &Side {
            name: "right",
            operand: 1,
            extent: n,
            first: "first_column",
            tile: tile_columns,
            stride: b.col_stride,
            term_stride: b.row_stride,
        },
        gemm.k,
        depth,
        shape,
        bound,
    );
    line(text, 2, "workgroupBarrier();");
    line(text, 2, &format!("for (var l = 0u; l < {depth}u; l++) {{"));
    for i in 0..rows {
        let at = format!("l * {}u + down + {}u", tile_rows + 1, i * shape.threads[0]);
        line(text, 3, &format!("let x{i} = left[{at}];"));
    }
    for j in 0..columns {
        let at = format!("l * {}u + across + {}u", tile_columns + 1, j * shape.threads[1]);
        line(text, 3, &format!("let y{j} = right[{at}];"));
    }
    for (i, j) in pairs(shape) {
        line(text, 3, &format!("t{i}_{j} += x{i} * y{j};"));
    }
    line(text, 2, "}");
    line(text, 2, "workgroupBarrier();");
    line(text, 1, "}");
    // One more than a row of the tile: neighbouring terms lie in different banks.
    format!(
        "var<workgroup> left: array<f32, {}>;\nvar<workgroup> right: array<f32, {}>;\n",
        depth * (tile_rows + 1),
        depth * (tile_columns + 1)
    )
}

/// One operand's tile: rows of a, columns of b.
struct Side {
    name: &'static str,
    operand: usize,
    extent: usize,
    first: &'static str,
    tile: usize,
    stride: usize,
    term_stride: usize,
}

/// Neighbouring invocations read neighbouring elements, whichever way the operand lies.
fn fill(text: &mut String, side: &Side, terms: usize, depth: usize, shape: Shape, bound: &Bound) {
    let invocations = shape.threads[0] * shape.threads[1];
    let Side { name, operand, extent, first, tile, stride, term_stride } = side;
    let count = tile * depth;
    line(text, 2, &format!("for (var e = lane; e < {count}u; e += {invocations}u) {{"));
    let (line_of, term_of) = match term_stride <= stride {
        true => (format!("e / {depth}u"), format!("e % {depth}u")),
        false => (format!("e % {tile}u"), format!("e / {tile}u")),
    };
    line(text, 3, &format!("let line = {line_of};"));
    line(text, 3, &format!("let term = {term_of};"));
    line(text, 3, &format!("let is_there = {first} + line < {extent}u && k + term < {terms}u;"));
    let at = format!(
        "start{operand} + min({first} + line, {}u) * {stride}u + min(k + term, {}u) * {term_stride}u",
        extent - 1,
        terms - 1
    );
    let value = read(bound, *operand, &at);
    line(text, 3, &format!("{name}[term * {}u + line] = select(0.0f, {value}, is_there);", tile + 1));
    line(text, 2, "}");
}

fn results(text: &mut String, gemm: &Gemm, shape: Shape, bound: &Bound) {
    let index = |matrix: &Matrix, operand: usize, i: usize, j: usize| {
        format!("start{operand} + row{i} * {}u + column{j} * {}u", matrix.row_stride, matrix.col_stride)
    };
    for (i, j) in pairs(shape) {
        let mut value = match gemm.alpha == 1.0 {
            true => format!("t{i}_{j}"),
            false => format!("{} * t{i}_{j}", scalar::float(gemm.alpha)),
        };
        if let Some(c) = &gemm.c {
            let addend = read(bound, 3, &index(c, 3, i, j));
            value = format!("{value} + {} * {addend}", scalar::float(gemm.beta));
        }
        line(text, 1, &format!("if row{i} < {}u && column{j} < {}u {{", gemm.m, gemm.n));
        let place = format!("m{}[{}]", bound.places[2].binding, index(&gemm.out, 2, i, j));
        line(text, 2, &format!("{place} = bitcast<u32>({value});"));
        line(text, 1, "}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn direct_tiles_fit_their_product() {
        let shape = |m, n| {
            let Shape { each, threads, .. } = Shape::direct(m, n);
            (each, threads)
        };
        assert_eq!(shape(512, 512), ([8, 8], [8, 8]));
        assert_eq!(shape(1, 512), ([1, 8], [1, 64]));
        assert_eq!(shape(16, 16).0[0] * shape(16, 16).1[0], 16);
    }
}
