//! What an author implements: one trait for each kind of component.

use crate::abi::{layout, role};
use crate::{Cx, Dims, Tensor};

/// A complaint about an option: its key, and what is wrong with it.
pub type Fault = (String, String);

/// What a parameter is for. Optimizers treat roles differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// Weight of a product, [out, in].
    Matrix = role::MATRIX,
    /// Rows looked up by id.
    Embedding = role::EMBEDDING,
    /// Scale of a norm.
    Gain = role::GAIN,
    /// Added vector.
    Bias = role::BIAS,
    /// One number, or one a head.
    Scalar = role::SCALAR,
    /// Initial state of a memory that learns.
    Memory = role::MEMORY,
}

/// Initial values of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Mean 0 and this standard deviation.
    Normal(f64),
    /// Between minus and plus this.
    Uniform(f64),
    Constant(f64),
}

/// Result of a forward pass: logits are `hidden head'`.
#[derive(Clone, Copy)]
pub struct Output<'c> {
    /// `[B, T, D]`, after the final norm.
    pub hidden: Tensor<'c>,
    /// `[V, D]`
    pub head: Tensor<'c>,
}

/// What training minimises: the mean of `token_losses` plus `auxiliary`.
#[derive(Clone, Copy)]
pub struct Loss<'c> {
    /// `[B, T]`, nats.
    pub token_losses: Tensor<'c>,
    /// One number.
    pub auxiliary: Option<Tensor<'c>>,
}

/// A language model.
pub trait Model {
    /// From token ids `[B, T]` (i32) to hidden states and head.
    fn forward<'c>(&self, cx: &'c Cx<'c>, tokens_bt: Tensor<'c>) -> Output<'c>;

    /// Per-token losses. The default is cross-entropy of `forward`.
    fn train<'c>(&self, cx: &'c Cx<'c>, tokens_bt: Tensor<'c>, targets_bt: Tensor<'c>) -> Loss<'c> {
        let Output { hidden, head } = self.forward(cx, tokens_bt);
        Loss { token_losses: cx.linear_cross_entropy(hidden, head, targets_bt), auxiliary: None }
    }

    /// Writes what memories were taught and is still pending: in a session, when a text is at its end.
    fn flush<'c>(&self, _cx: &'c Cx<'c>) {}

    /// What the schema of the options cannot say.
    fn validate(&self, _dims: &Dims) -> Vec<Fault> {
        Vec::new()
    }
}

/// An attention backbone: mixes tokens, `[B, T, D]` to `[B, T, D]`.
pub trait Attention {
    /// `positions` is `[T]` or `[B, T]` (i32) where the model wants rotary positions, else None.
    fn trace<'c>(&self, cx: &'c Cx<'c>, x_btd: Tensor<'c>, positions: Option<Tensor<'c>>) -> Tensor<'c>;

    /// What the schema of the options cannot say. `dims.width` is D.
    fn validate(&self, _dims: &Dims) -> Vec<Fault> {
        Vec::new()
    }
}

/// How an optimizer wants the parameters of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Layout {
    /// All in one group `[n]`: for rules that are the same for every element.
    Flat = layout::FLAT,
    /// A group `[k, m, n]` for each shape of matrix. Parameters of more than two axes are `[first, rest]`; those of
    /// fewer are not taken.
    Stacked = layout::STACKED,
    /// Left to another optimizer. The options then have `fallback: String`, its name, and may have
    /// `fallback_lr: f64`, its learning rate as a factor of the schedule's.
    NotTaken = layout::NOT_TAKEN,
}

/// Parameters of one role with their clipped gradient.
#[derive(Clone, Copy)]
pub struct Group<'c> {
    pub role: Role,
    /// `[n]`, or `[k, m, n]` where the layout is stacked.
    pub parameter: Tensor<'c>,
    /// As the parameter.
    pub gradient: Tensor<'c>,
}

/// An outer optimizer.
pub trait Optimizer {
    /// The bank after the step. State comes from [`Cx::optimizer_state`] and goes to [`Cx::write`].
    fn update<'c>(&self, cx: &'c Cx<'c>, group: Group<'c>) -> Tensor<'c>;

    /// In which layout it takes the parameters of a role, or that it does not.
    fn layout(&self, _role: Role) -> Layout {
        Layout::Flat
    }

    /// What the schema of the options cannot say.
    fn validate(&self, _dims: &Dims) -> Vec<Fault> {
        Vec::new()
    }
}

impl Role {
    pub fn from_code(code: u8) -> Option<Role> {
        use Role::*;
        [Matrix, Embedding, Gain, Bias, Scalar, Memory].into_iter().find(|role| *role as u8 == code)
    }
}
