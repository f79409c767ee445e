//! Element-wise functions of the façade, with their first and second derivatives.

use plugin_api::Tensor;

use super::trace::{Given, Outputs};

/// y = f(x), and the derivatives of the sums of y and of dy/dx, which are element-wise.
fn function<'c>(given: &Given<'c>, f: impl FnOnce(Tensor<'c>) -> Tensor<'c>) -> Outputs<'c> {
    let x = given.x("x");
    let y = f(x);
    let derivative = |y: Tensor<'c>| given.cx.grad(y.total(), &[x])[0];
    let first = derivative(y);
    vec![("y".into(), y), ("first_derivative".into(), first), ("second_derivative".into(), derivative(first))]
}

pub fn gelu_erf<'c>(given: &Given<'c>) -> Outputs<'c> {
    function(given, Tensor::gelu)
}

pub fn gelu_tanh<'c>(given: &Given<'c>) -> Outputs<'c> {
    function(given, Tensor::gelu_tanh)
}

pub fn silu<'c>(given: &Given<'c>) -> Outputs<'c> {
    function(given, Tensor::silu)
}

pub fn sigmoid<'c>(given: &Given<'c>) -> Outputs<'c> {
    function(given, Tensor::sigmoid)
}

pub fn softplus<'c>(given: &Given<'c>) -> Outputs<'c> {
    function(given, Tensor::softplus)
}

pub fn relu_squared<'c>(given: &Given<'c>) -> Outputs<'c> {
    function(given, Tensor::relu_squared)
}

pub fn softcap<'c>(given: &Given<'c>) -> Outputs<'c> {
    let cap = given.number("c");
    function(given, |x| x.softcap(cap))
}
