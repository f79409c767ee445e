//! Arithmetic on tensors and numbers, and the element-wise functions of the field.

use std::ops::{Add, Div, Mul, Neg, Sub};

use crate::{Op, Tensor};

macro_rules! operators {
    ($($trait:ident $method:ident)*) => {$(
        impl<'c> $trait for Tensor<'c> {
            type Output = Tensor<'c>;
            #[track_caller]
            fn $method(self, other: Tensor<'c>) -> Tensor<'c> { self.binary(Op::$trait, other) }
        }

        impl<'c> $trait<f64> for Tensor<'c> {
            type Output = Tensor<'c>;
            #[track_caller]
            fn $method(self, other: f64) -> Tensor<'c> { self.binary(Op::$trait, self.number(other)) }
        }

        impl<'c> $trait<Tensor<'c>> for f64 {
            type Output = Tensor<'c>;
            #[track_caller]
            fn $method(self, other: Tensor<'c>) -> Tensor<'c> { other.number(self).binary(Op::$trait, other) }
        }
    )*};
}

operators! { Add add  Sub sub  Mul mul  Div div }

impl<'c> Neg for Tensor<'c> {
    type Output = Tensor<'c>;
    #[track_caller]
    fn neg(self) -> Tensor<'c> {
        self.unary(Op::Neg)
    }
}

macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident $op:ident)*) => {
        impl<'c> Tensor<'c> {
            $($(#[$doc])* #[track_caller] pub fn $name(self) -> Tensor<'c> { self.unary(Op::$op) })*
        }
    };
}

functions! {
    exp Exp
    /// Natural logarithm.
    ln Log
    sqrt Sqrt
    /// 1 / x
    recip Recip
    sin Sin
    cos Cos
    tanh Tanh
    /// Error function.
    erf Erf
    floor Floor
    /// Softmax over the last axis.
    softmax Softmax
    /// The value, without a cotangent.
    stop_grad StopGrad
}

impl<'c> Tensor<'c> {
    /// x^2
    #[track_caller]
    pub fn square(self) -> Tensor<'c> {
        self * self
    }

    /// The larger of two tensors.
    #[track_caller]
    pub fn max(self, other: Tensor<'c>) -> Tensor<'c> {
        self.binary(Op::Max, other)
    }

    /// The smaller of two tensors.
    #[track_caller]
    pub fn min(self, other: Tensor<'c>) -> Tensor<'c> {
        self.binary(Op::Min, other)
    }

    /// x < y, bool.
    #[track_caller]
    pub fn less(self, other: Tensor<'c>) -> Tensor<'c> {
        self.binary(Op::Lt, other)
    }

    /// x = y, bool.
    #[track_caller]
    pub fn equals(self, other: Tensor<'c>) -> Tensor<'c> {
        self.binary(Op::Eq, other)
    }

    /// max(x, 0)
    #[track_caller]
    pub fn relu(self) -> Tensor<'c> {
        self.max(self.number(0.0))
    }

    /// x Phi(x) with the exact error function (Hendrycks and Gimpel 2016).
    #[track_caller]
    pub fn gelu(self) -> Tensor<'c> {
        self * 0.5 * ((self * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0)
    }

    /// x Phi(x) by its approximation with tanh (Hendrycks and Gimpel 2016).
    #[track_caller]
    pub fn gelu_tanh(self) -> Tensor<'c> {
        let inner = (self + self * self.square() * 0.044715) * (2.0 / std::f64::consts::PI).sqrt();
        self * 0.5 * (inner.tanh() + 1.0)
    }

    /// 1 / (1 + e^-x), as (1 + tanh(x / 2)) / 2, which never overflows.
    #[track_caller]
    pub fn sigmoid(self) -> Tensor<'c> {
        (self * 0.5).tanh() * 0.5 + 0.5
    }

    /// x sigmoid(x)
    #[track_caller]
    pub fn silu(self) -> Tensor<'c> {
        self * self.sigmoid()
    }

    /// silu(x) up: the gate of SwiGLU (Shazeer 2020).
    #[track_caller]
    pub fn swiglu(self, up: Tensor<'c>) -> Tensor<'c> {
        self.silu() * up
    }

    /// log(1 + e^x), without overflow: m + log(e^(x - m) + e^-m) with m = max(x, 0). The value does not depend on m, so
    /// no cotangent passes there, and the derivatives are those of the smooth function at 0 too.
    #[track_caller]
    pub fn softplus(self) -> Tensor<'c> {
        let peak = self.relu().stop_grad();
        peak + ((self - peak).exp() + (-peak).exp()).ln()
    }

    /// max(x, 0)^2 (So et al. 2021), with derivatives 0 at 0.
    #[track_caller]
    pub fn relu_squared(self) -> Tensor<'c> {
        let zero = self.number(0.0);
        zero.less(self).select(self.square(), zero)
    }

    /// cap tanh(x / cap): nearly x while small, never beyond the cap.
    #[track_caller]
    pub fn softcap(self, cap: f64) -> Tensor<'c> {
        (self * (1.0 / cap)).tanh() * cap
    }
}
