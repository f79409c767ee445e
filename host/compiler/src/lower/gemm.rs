//! A Dot as matrix products over strides.

use graph::attributes::DotAxes;
use graph::{Graph, NodeId};
use plan::{Gemm, GemmBatch, Matrix, Slot};

use crate::view::View;

/// Batch axes of the Dot become batch axes of the launch; so do outer free axes of the left operand that do not
/// collapse into one row stride, there or in what is added (the right operand repeats).
pub fn lower(
    graph: &Graph,
    id: NodeId,
    is_symmetric: bool,
    at: impl Fn(NodeId) -> Result<(Slot, Vec<usize>), String>,
) -> Result<Gemm, String> {
    let node = graph.node(id);
    let (x, y) = (node.inputs[0], node.inputs[1]);
    let (dims_x, dims_y) = (graph.dims(x), graph.dims(y));
    let axes: DotAxes = node.dot_axes(dims_x.len(), dims_y.len());
    // Without an addend the result's own strides stand in for its, and collapse where those do.
    let addend = node.inputs.get(2).map(|c| at(*c)).transpose()?;
    let ((slot_x, strides_x), (slot_y, strides_y), (slot_out, strides_out)) = (at(x)?, at(y)?, at(id)?);
    let view = |strides: &[usize]| View { offset: 0, strides: strides.to_vec() };
    let (view_x, view_y, view_out) = (view(&strides_x), view(&strides_y), view(&strides_out));
    let view_c = addend.as_ref().map_or(view_out.clone(), |(_, strides)| view(strides));
    let out_dims = &node.ty.dims;
    let batches = axes.batch.0.len();
    let rows = batches..batches + axes.free.0.len();

    let mut split = 0;
    let (row_x, row_c, row_out) = loop {
        let of_x = view_x.collapse(dims_x, axes.free.0[split..].iter().copied());
        let of_c = view_c.collapse(out_dims, rows.start + split..rows.end);
        let of_out = view_out.collapse(out_dims, rows.start + split..rows.end);
        match (of_x, of_c, of_out) {
            (Some(of_x), Some(of_c), Some(of_out)) => break (of_x, of_c, of_out),
            _ => split += 1,
        }
    };
    let single =
        |what: &str, stride: Option<usize>| stride.ok_or_else(|| format!("{id}: {what} do not collapse"));
    let extent = |dims: &[usize], axes: &[usize]| axes.iter().map(|axis| dims[*axis]).product::<usize>();
    let of_c = |axis: usize| addend.as_ref().map_or(0, |(_, strides)| strides[axis]);
    let batch_axes = (0..batches).map(|i| GemmBatch {
        count: out_dims[i],
        a: strides_x[axes.batch.0[i]],
        b: strides_y[axes.batch.1[i]],
        c: of_c(i),
        out: strides_out[i],
    });
    let split_rows = (0..split).map(|i| GemmBatch {
        count: dims_x[axes.free.0[i]],
        a: strides_x[axes.free.0[i]],
        b: 0,
        c: of_c(batches + i),
        out: strides_out[batches + i],
    });
    let (contract_x, contract_y) = (axes.contract.0.iter().copied(), axes.contract.1.iter().copied());
    let columns = rows.end..out_dims.len();
    let c = match &addend {
        Some((slot, _)) => Some(Matrix {
            slot: *slot,
            row_stride: row_c,
            col_stride: single("columns of the addend", view_c.collapse(out_dims, columns.clone()))?,
        }),
        None => None,
    };
    Ok(Gemm {
        m: extent(dims_x, &axes.free.0[split..]),
        n: extent(dims_y, &axes.free.1),
        k: extent(dims_x, &axes.contract.0),
        alpha: node.floats[0] as f32,
        beta: node.floats.get(1).map_or(0.0, |beta| *beta as f32),
        a: Matrix {
            slot: slot_x,
            row_stride: row_x,
            col_stride: single("contracted axes of x", view_x.collapse(dims_x, contract_x))?,
        },
        b: Matrix {
            slot: slot_y,
            row_stride: single("contracted axes of y", view_y.collapse(dims_y, contract_y))?,
            col_stride: single("free axes of y", view_y.collapse(dims_y, axes.free.1.iter().copied()))?,
        },
        c,
        out: Matrix {
            slot: slot_out,
            row_stride: row_out,
            col_stride: single("columns of the result", view_out.collapse(out_dims, columns))?,
        },
        batch: batch_axes.chain(split_rows).filter(|batch| batch.count > 1).collect(),
        symmetric: is_symmetric,
    })
}
