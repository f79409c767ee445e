//! The derivative of a contraction: two more contractions.

use crate::attributes::DotAxes;
use crate::{Node, Var};

/// The result's axes are [batch, free x, free y]. dx contracts ct with y over free y; dy contracts ct with x over
/// free x, so that dW of y = x W' comes out as [out, in].
pub fn cotangents<'b>(node: &Node, x: Var<'b>, y: Var<'b>, ct: Var<'b>) -> (Var<'b>, Var<'b>) {
    let axes = node.dot_axes(x.rank(), y.rank());
    let alpha = node.floats[0];
    let batch: Vec<usize> = (0..axes.batch.0.len()).collect();
    let free_x: Vec<usize> = (0..axes.free.0.len()).map(|i| batch.len() + i).collect();
    let free_y: Vec<usize> = (0..axes.free.1.len()).map(|i| batch.len() + free_x.len() + i).collect();
    let side = |other: Var<'b>, own: Side, far: Side, far_in_ct: &[usize], own_in_ct: &[usize]| {
        let product = DotAxes {
            batch: (batch.clone(), far.batch.to_vec()),
            contract: (far_in_ct.to_vec(), far.free.to_vec()),
            free: (own_in_ct.to_vec(), sorted(far.contract)),
        };
        // Axes now: batch, own free axes, then the other's contracted axes in ascending order.
        let contracted = sorted(far.contract).into_iter().map(|axis| {
            let pair =
                far.contract.iter().position(|other| *other == axis).expect("axis comes from this list");
            own.contract[pair]
        });
        let order: Vec<usize> = own.batch.iter().chain(own.free).copied().chain(contracted).collect();
        let mut axes_back = vec![0; order.len()];
        order.iter().enumerate().for_each(|(from, to)| axes_back[*to] = from);
        ct.dot(other, &product, alpha).permute(&axes_back)
    };
    let side_x = Side { batch: &axes.batch.0, contract: &axes.contract.0, free: &axes.free.0 };
    let side_y = Side { batch: &axes.batch.1, contract: &axes.contract.1, free: &axes.free.1 };
    (side(y, side_x, side_y, &free_y, &free_x), side(x, side_y, side_x, &free_x, &free_y))
}

/// One operand's axes of a Dot.
#[derive(Clone, Copy)]
struct Side<'a> {
    batch: &'a [usize],
    contract: &'a [usize],
    free: &'a [usize],
}

fn sorted(axes: &[usize]) -> Vec<usize> {
    let mut sorted = axes.to_vec();
    sorted.sort_unstable();
    sorted
}
