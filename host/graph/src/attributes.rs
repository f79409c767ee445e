//! Reading the integer attributes of the ops that have structure.

use crate::Node;

/// Axes of a Dot, decoded. `batch`, `contract` pair axes of x with axes of y; `free` are the rest, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DotAxes {
    pub batch: (Vec<usize>, Vec<usize>),
    pub contract: (Vec<usize>, Vec<usize>),
    pub free: (Vec<usize>, Vec<usize>),
}

impl DotAxes {
    /// None when the list is malformed for the ranks.
    pub fn decode(ints: &[i64], rank_x: usize, rank_y: usize) -> Option<DotAxes> {
        let batch = usize::try_from(*ints.first()?).ok()?;
        let contract = usize::try_from(*ints.get(1)?).ok()?;
        let axes: Vec<usize> =
            ints[2..].iter().map(|axis| usize::try_from(*axis).ok()).collect::<Option<_>>()?;
        if axes.len() != batch.checked_add(contract)?.checked_mul(2)? {
            return None;
        }
        let (batch_x, rest) = axes.split_at(batch);
        let (batch_y, rest) = rest.split_at(batch);
        let (contract_x, contract_y) = rest.split_at(contract);
        let free_x = free_axes(rank_x, batch_x, contract_x)?;
        let free_y = free_axes(rank_y, batch_y, contract_y)?;
        Some(DotAxes {
            batch: (batch_x.to_vec(), batch_y.to_vec()),
            contract: (contract_x.to_vec(), contract_y.to_vec()),
            free: (free_x, free_y),
        })
    }

    pub fn encode(batch: (&[usize], &[usize]), contract: (&[usize], &[usize])) -> Vec<i64> {
        let counts = [batch.0.len(), contract.0.len()];
        let axes = [batch.0, batch.1, contract.0, contract.1].concat();
        counts.into_iter().chain(axes).map(|value| value as i64).collect()
    }
}

/// Axes below `rank` that are in neither list; None when an axis repeats or is out of range.
fn free_axes(rank: usize, batch: &[usize], contract: &[usize]) -> Option<Vec<usize>> {
    let mut taken = vec![false; rank];
    for &axis in batch.iter().chain(contract) {
        if axis >= rank || std::mem::replace(&mut taken[axis], true) {
            return None;
        }
    }
    Some((0..rank).filter(|axis| !taken[*axis]).collect())
}

/// Attributes as extents or axes.
pub fn usizes(ints: &[i64]) -> Vec<usize> {
    ints.iter().map(|value| *value as usize).collect()
}

/// (start, length) or (before, after) per axis.
pub fn pairs(ints: &[i64]) -> Vec<(usize, usize)> {
    ints.chunks(2).map(|pair| (pair[0] as usize, pair[1] as usize)).collect()
}

impl Node {
    /// Axes of a verified Dot.
    pub fn dot_axes(&self, rank_x: usize, rank_y: usize) -> DotAxes {
        DotAxes::decode(&self.ints, rank_x, rank_y).expect("inference accepted this Dot")
    }
}
