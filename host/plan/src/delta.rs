//! Launches of the gated delta rule, forward and backward: operands where they lie.

use crate::{Heads, Slot};

/// `S_t = alpha_t S_(t-1) (I - beta_t k_t k_t') + beta_t v_t k_t'`, `o_t = S_t q_t` for each head of each sequence, with
/// alpha = e^log_alpha. All f32. Either result may be missing. Results overlap no operand.
///
/// How tokens are taken together may depend on the shape, never on the number of threads.
#[derive(Clone, Debug, PartialEq)]
pub struct DeltaRule {
    pub shape: DeltaShape,
    pub operands: DeltaTensors,
    /// `[B, H, T, V]`.
    pub out: Option<Heads>,
    /// `[B, H, V, K]`.
    pub last: Option<Heads>,
}

/// Cotangents of the operands from those of the results, each of which may be missing. Results overlap no operand.
#[derive(Clone, Debug, PartialEq)]
pub struct DeltaRuleGrad {
    pub shape: DeltaShape,
    pub operands: DeltaTensors,
    /// `[B, H, T, V]`.
    pub ct_out: Option<Heads>,
    /// `[B, H, V, K]`.
    pub ct_last: Option<Heads>,
    /// In the order of [`DeltaTensors`].
    pub cts: [Option<Heads>; 6],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaShape {
    pub batch: usize,
    pub heads: usize,
    pub tokens: usize,
    /// Of queries and keys.
    pub width: usize,
    pub value_width: usize,
}

/// The operands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeltaTensors {
    /// `[B, H, T, K]`.
    pub q: Heads,
    pub k: Heads,
    /// `[B, H, T, V]`.
    pub v: Heads,
    /// `[B, H, T, 1]`.
    pub log_alpha: Heads,
    pub beta: Heads,
    /// `[B, H, V, K]`: its tokens are the rows of V.
    pub state: Heads,
}

/// What operands, and results of the derivative, are called.
pub(crate) const NAMES: [&str; 6] = ["q", "k", "v", "log_alpha", "beta", "state"];

type Check = Result<(), String>;

impl DeltaShape {
    /// Extents of the operands.
    pub fn operands(&self) -> [[usize; 4]; 6] {
        let DeltaShape { batch, heads, tokens, width, value_width } = *self;
        let rows = |last| [batch, heads, tokens, last];
        [rows(width), rows(width), rows(value_width), rows(1), rows(1), [batch, heads, value_width, width]]
    }

    fn check(&self) -> Check {
        let DeltaShape { batch, heads, tokens, width, value_width } = *self;
        match [batch, heads, tokens, width, value_width].contains(&0) {
            true => Err(format!("no delta rule of {self}")),
            false => Ok(()),
        }
    }
}

impl DeltaTensors {
    /// In the order of the fields.
    pub fn all(&self) -> [Heads; 6] {
        [self.q, self.k, self.v, self.log_alpha, self.beta, self.state]
    }

    fn check(&self, shape: &DeltaShape) -> Check {
        let mut named = NAMES.into_iter().zip(self.all()).zip(shape.operands());
        named.try_for_each(|((name, heads), dims)| heads.check(name, dims))
    }
}

impl DeltaRule {
    /// Every slot, for checks of where it lies.
    pub fn slots(&self) -> Vec<Slot> {
        let results = [self.out, self.last].into_iter().flatten();
        self.operands.all().into_iter().chain(results).map(|heads| heads.slot).collect()
    }

    pub(crate) fn check(&self) -> Check {
        self.shape.check()?;
        self.operands.check(&self.shape)?;
        let [_, _, v, _, _, state] = self.shape.operands();
        for (name, heads, dims) in [("out", self.out, v), ("last", self.last, state)] {
            heads.map_or(Ok(()), |heads| heads.check_written(name, dims))?;
        }
        Ok(())
    }
}

impl DeltaRuleGrad {
    /// Every slot, for checks of where it lies.
    pub fn slots(&self) -> Vec<Slot> {
        let others = [self.ct_out, self.ct_last].into_iter().chain(self.cts).flatten();
        self.operands.all().into_iter().chain(others).map(|heads| heads.slot).collect()
    }

    pub(crate) fn check(&self) -> Check {
        self.shape.check()?;
        self.operands.check(&self.shape)?;
        let dims = self.shape.operands();
        for (name, heads, dims) in [("ct_out", self.ct_out, dims[2]), ("ct_last", self.ct_last, dims[5])] {
            heads.map_or(Ok(()), |heads| heads.check(name, dims))?;
        }
        for ((name, heads), dims) in NAMES.into_iter().zip(self.cts).zip(dims) {
            heads.map_or(Ok(()), |heads| heads.check_written(&format!("ct_{name}"), dims))?;
        }
        Ok(())
    }
}
