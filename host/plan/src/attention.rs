//! Launches of attention, forward and backward: operands where they lie, and what their queries see.

use ops::DType;

use crate::Slot;

/// `out = softmax(scale q k' of visible keys) v` and the log-sum-exp of each row, for each head of each sequence. All
/// f32. Either result may be missing. Results overlap no operand.
///
/// A query that sees no key gives 0 in both. Which blocks are computed apart may depend on the shape, never on the
/// number of threads.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    pub shape: AttentionShape,
    /// `[B, H, Tq, D]`, `[B, G, Tk, D]`, `[B, G, Tk, Dv]`.
    pub q: Heads,
    pub k: Heads,
    pub v: Heads,
    /// `[B, H, Tq, Dv]`.
    pub out: Option<Heads>,
    /// `[B, H, Tq]`, row-major.
    pub lse: Option<Slot>,
}

/// Cotangents of q, k and v from that of the result, each of which may be missing. Results overlap no operand.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionGrad {
    pub shape: AttentionShape,
    pub q: Heads,
    pub k: Heads,
    pub v: Heads,
    /// What the forward launch gave.
    pub out: Heads,
    pub lse: Slot,
    pub ct_out: Heads,
    pub ct_q: Option<Heads>,
    pub ct_k: Option<Heads>,
    pub ct_v: Option<Heads>,
}

/// Extents and mask. Every query sees the first `prefix` keys; a later key j has position j - prefix, and query i has
/// `q_offset[b] + i`, without that operand Tk - prefix - Tq + i. The key is visible if all of the mask's conditions hold:
/// see `Attention` in the op table.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionShape {
    pub batch: usize,
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub groups: usize,
    pub queries: usize,
    pub keys: usize,
    pub width: usize,
    pub value_width: usize,
    pub scale: f32,
    pub causal: bool,
    /// 0 for none.
    pub window: usize,
    pub prefix: usize,
    /// `[B]`.
    pub q_offset: Option<Numbers>,
    /// `[B]`.
    pub kv_len: Option<Numbers>,
    /// `[B, Tq]` and `[B, Tk]`.
    pub segments: Option<(Numbers, Numbers)>,
}

/// A strided tensor `[B, heads, tokens, width]` of f32. Strides are in elements, and may be 0 where it is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heads {
    pub slot: Slot,
    pub batch: usize,
    pub head: usize,
    pub token: usize,
    pub element: usize,
}

/// A strided tensor `[B]` or `[B, tokens]` of i32; `token` is 0 for the former.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Numbers {
    pub slot: Slot,
    pub batch: usize,
    pub token: usize,
}

type Check = Result<(), String>;

impl Attention {
    /// Every slot, for checks of where it lies.
    pub fn slots(&self) -> Vec<Slot> {
        let heads = [self.q, self.k, self.v].into_iter().chain(self.out).map(|heads| heads.slot);
        heads.chain(self.lse).chain(self.shape.slots()).collect()
    }

    pub(crate) fn check(&self) -> Check {
        let shape = &self.shape;
        shape.check()?;
        shape.check_operands([self.q, self.k, self.v])?;
        shape.check_row("lse", self.lse)?;
        let Some(out) = self.out else { return Ok(()) };
        out.check_written("out", shape.outputs())
    }
}

impl AttentionGrad {
    /// Every slot, for checks of where it lies.
    pub fn slots(&self) -> Vec<Slot> {
        let given = [self.q, self.k, self.v, self.out, self.ct_out].into_iter();
        let cts = [self.ct_q, self.ct_k, self.ct_v].into_iter().flatten();
        let heads = given.chain(cts).map(|heads| heads.slot);
        heads.chain([self.lse]).chain(self.shape.slots()).collect()
    }

    pub(crate) fn check(&self) -> Check {
        let shape = &self.shape;
        shape.check()?;
        shape.check_operands([self.q, self.k, self.v])?;
        shape.check_row("lse", Some(self.lse))?;
        self.out.check("out", shape.outputs())?;
        self.ct_out.check("ct_out", shape.outputs())?;
        let [q, k, v] = shape.inputs();
        for (name, heads, dims) in [("ct_q", self.ct_q, q), ("ct_k", self.ct_k, k), ("ct_v", self.ct_v, v)] {
            heads.map_or(Ok(()), |heads| heads.check_written(name, dims))?;
        }
        Ok(())
    }
}

impl AttentionShape {
    /// Extents of q, k and v.
    pub fn inputs(&self) -> [[usize; 4]; 3] {
        let AttentionShape { batch, heads, groups, queries, keys, width, value_width, .. } = *self;
        [[batch, heads, queries, width], [batch, groups, keys, width], [batch, groups, keys, value_width]]
    }

    /// Extents of the result.
    pub fn outputs(&self) -> [usize; 4] {
        [self.batch, self.heads, self.queries, self.value_width]
    }

    fn numbers(&self) -> impl Iterator<Item = (&'static str, Numbers, usize)> {
        let (of_queries, of_keys) = self.segments.unzip();
        let all = [
            ("q_offset", self.q_offset, 1),
            ("kv_len", self.kv_len, 1),
            ("query segments", of_queries, self.queries),
            ("key segments", of_keys, self.keys),
        ];
        all.into_iter().filter_map(|(name, numbers, tokens)| Some((name, numbers?, tokens)))
    }

    fn slots(&self) -> impl Iterator<Item = Slot> {
        self.numbers().map(|(_, numbers, _)| numbers.slot)
    }

    fn check(&self) -> Check {
        let [q, k, v] = self.inputs();
        if [q, k, v].concat().contains(&0) || !self.heads.is_multiple_of(self.groups) {
            return Err(format!("no attention of q {q:?}, k {k:?}, v {v:?}"));
        }
        if self.prefix > self.keys || self.keys > i32::MAX as usize {
            return Err(format!("a prefix of {} keys among {}", self.prefix, self.keys));
        }
        for (name, Numbers { slot, batch, token }, tokens) in self.numbers() {
            within(name, slot, &[(self.batch, batch), (tokens, token)])?;
        }
        Ok(())
    }

    fn check_operands(&self, operands: [Heads; 3]) -> Check {
        let mut named = ["q", "k", "v"].into_iter().zip(operands).zip(self.inputs());
        named.try_for_each(|((name, heads), dims)| heads.check(name, dims))
    }

    fn check_row(&self, name: &str, slot: Option<Slot>) -> Check {
        let rows = self.batch * self.heads * self.queries;
        slot.map_or(Ok(()), |slot| within(name, slot, &[(rows, 1)]))
    }
}

impl Heads {
    fn axes(&self, [batch, heads, tokens, width]: [usize; 4]) -> [(usize, usize); 4] {
        [(batch, self.batch), (heads, self.head), (tokens, self.token), (width, self.element)]
    }

    pub(crate) fn check(&self, name: &str, dims: [usize; 4]) -> Check {
        within(name, self.slot, &self.axes(dims))
    }

    /// As [`Heads::check`], and no two elements are one.
    pub(crate) fn check_written(&self, name: &str, dims: [usize; 4]) -> Check {
        self.check(name, dims)?;
        let mut axes = self.axes(dims);
        axes.sort_unstable_by_key(|(_, stride)| *stride);
        let mut reach = 0;
        for (extent, stride) in axes.into_iter().filter(|(extent, _)| *extent > 1) {
            if stride <= reach {
                return Err(format!("{name}: two elements of {dims:?} are one"));
            }
            reach += (extent - 1) * stride;
        }
        Ok(())
    }
}

/// Whether the last element of a tensor with these extents and strides lies in the slot.
fn within(name: &str, slot: Slot, axes: &[(usize, usize)]) -> Check {
    let last: usize = axes.iter().map(|(extent, stride)| (extent - 1) * stride).sum();
    if (last + 1) * DType::BYTES <= slot.bytes {
        return Ok(());
    }
    Err(format!("{name}: element {last} lies outside slot {slot}"))
}
