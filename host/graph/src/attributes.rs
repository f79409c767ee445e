//! Reading the integer attributes of the ops that have structure.

use ops::attention::{KEY_SEGMENTS, QUERY_SEGMENTS};

use crate::{Node, ScanOptions};

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

/// A Scan, decoded. Operands are consts, carries and xs; inputs of the body are the index of the step, consts, carries
/// and slices of xs; its outputs, and the results, are carries and ys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanShape {
    pub body: usize,
    pub length: usize,
    pub carries: usize,
    pub xs: usize,
    pub options: ScanOptions,
    /// How many of the last ys are there for derivatives only. Under the policy `recompute` they are computed again
    /// where they are read.
    pub residuals: usize,
}

impl ScanShape {
    pub fn decode(ints: &[i64]) -> Option<ScanShape> {
        let [body, length, carries, xs, flags, residuals] = *ints else { return None };
        let size = |value: i64| usize::try_from(value).ok();
        (0..4).contains(&flags).then_some(())?;
        Some(ScanShape {
            body: size(body)?,
            length: size(length)?,
            carries: size(carries)?,
            xs: size(xs)?,
            options: ScanOptions { reverse: flags & 1 != 0, recompute: flags & 2 != 0 },
            residuals: size(residuals)?,
        })
    }

    pub fn encode(&self) -> Vec<i64> {
        let flags = usize::from(self.options.reverse) | usize::from(self.options.recompute) << 1;
        let all = [self.body, self.length, self.carries, self.xs, flags, self.residuals];
        all.map(|value| value as i64).to_vec()
    }

    /// How many operands are consts.
    pub fn consts(&self, operands: usize) -> usize {
        operands.saturating_sub(self.carries + self.xs)
    }
}

/// A When, decoded. Operands are the counter, consts and olds; inputs of the body are consts and olds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WhenShape {
    pub body: usize,
    pub period: usize,
    pub offset: usize,
    pub olds: usize,
    /// How many further results its derivative reads; zeros where the body did not run.
    pub residuals: usize,
}

impl WhenShape {
    pub fn decode(ints: &[i64]) -> Option<WhenShape> {
        let sizes: Vec<usize> =
            ints.iter().map(|value| usize::try_from(*value).ok()).collect::<Option<_>>()?;
        let [body, period, offset, olds, residuals] = sizes[..] else { return None };
        Some(WhenShape { body, period, offset, olds, residuals })
    }

    pub fn encode(&self) -> Vec<i64> {
        [self.body, self.period, self.offset, self.olds, self.residuals].map(|value| value as i64).to_vec()
    }

    /// How many operands are consts; the counter is none of them.
    pub fn consts(&self, operands: usize) -> usize {
        operands.saturating_sub(1 + self.olds)
    }

    /// Whether the body runs at this value of the counter.
    pub fn is_due(&self, counter: i64) -> bool {
        counter.rem_euclid(self.period as i64) == self.offset as i64
    }
}

/// Attributes as extents or axes.
pub fn usizes(ints: &[i64]) -> Vec<usize> {
    ints.iter().map(|value| *value as usize).collect()
}

/// (start, length) or (before, after) per axis.
pub fn pairs(ints: &[i64]) -> Vec<(usize, usize)> {
    ints.chunks(2).map(|pair| (pair[0] as usize, pair[1] as usize)).collect()
}

/// What an Attention lets its queries see, decoded. Attributes that are left out have the values of `[1, 0, 0, 0]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionMask {
    pub causal: bool,
    /// How many keys a query sees, its own included; 0 for all.
    pub window: usize,
    pub prefix: usize,
    operands: i64,
}

impl AttentionMask {
    /// The reason is worded to follow "Attention".
    pub fn decode(ints: &[i64]) -> Result<AttentionMask, &'static str> {
        let defaults = [1, 0, 0, 0];
        if ints.len() > defaults.len() {
            return Err("takes at most 4 integer attributes: causal, window, prefix, operands");
        }
        let [causal, window, prefix, operands] =
            std::array::from_fn(|index| ints.get(index).copied().unwrap_or(defaults[index]));
        let extent = |value: i64| u32::try_from(value).ok().filter(|value| *value <= i32::MAX as u32);
        let (Some(window), Some(prefix)) = (extent(window), extent(prefix)) else {
            return Err("needs a window and a prefix in 0..2^31");
        };
        let segments = QUERY_SEGMENTS | KEY_SEGMENTS;
        if !(0..16).contains(&operands) || ![0, segments].contains(&(operands & segments)) {
            return Err(
                "needs operands as a sum of 1 (q_offset), 2 (kv_len) and 12 (segments of queries and keys)",
            );
        }
        if !(0..=1).contains(&causal) {
            return Err("needs causal as 0 or 1");
        }
        Ok(AttentionMask { causal: causal == 1, window: window as usize, prefix: prefix as usize, operands })
    }

    /// Where among all operands the optional one with this bit is.
    pub fn operand(self, bit: i64) -> Option<usize> {
        let before = (self.operands & (bit - 1)).count_ones() as usize;
        (self.operands & bit != 0).then_some(3 + before)
    }

    /// How many operands q, k, v and the optional ones are.
    pub fn arity(self) -> usize {
        3 + self.operands.count_ones() as usize
    }
}

impl Node {
    /// Axes of a verified Dot.
    pub fn dot_axes(&self, rank_x: usize, rank_y: usize) -> DotAxes {
        DotAxes::decode(&self.ints, rank_x, rank_y).expect("inference accepted this Dot")
    }

    /// Shape of a verified Scan.
    pub fn scan_shape(&self) -> ScanShape {
        ScanShape::decode(&self.ints).expect("inference accepted this Scan")
    }

    /// Shape of a verified When.
    pub fn when_shape(&self) -> WhenShape {
        WhenShape::decode(&self.ints).expect("inference accepted this When")
    }

    /// Which results of a GatedDeltaRule a verified GatedDeltaRuleGrad gets cotangents of: o, the last state.
    pub fn delta_cotangents(&self) -> [bool; 2] {
        let bits = self.ints.get(1).copied().unwrap_or(3);
        [bits & 1 != 0, bits & 2 != 0]
    }

    /// Mask of a verified Attention.
    pub fn attention_mask(&self) -> AttentionMask {
        AttentionMask::decode(&self.ints).expect("inference accepted this Attention")
    }
}
