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
    let slope = (2.0 / std::f64::consts::PI).sqrt();
    function(given, |x| x * 0.5 * (((x + x * x * x * 0.044715) * slope).tanh() + 1.0))
}

pub fn silu<'c>(given: &Given<'c>) -> Outputs<'c> {
    function(given, Tensor::silu)
}

pub fn sigmoid<'c>(given: &Given<'c>) -> Outputs<'c> {
    function(given, Tensor::sigmoid)
}

/// log(e^0 + e^x), shifted by the larger exponent.
pub fn softplus<'c>(given: &Given<'c>) -> Outputs<'c> {
    function(given, |x| {
        let peak = x.relu().stop_grad();
        peak + ((-peak).exp() + (x - peak).exp()).ln()
    })
}

/// Both derivatives are 0 at 0, which the square of `relu` would miss: a maximum shares its derivative at a tie.
pub fn relu_squared<'c>(given: &Given<'c>) -> Outputs<'c> {
    function(given, |x| {
        let zeros = given.cx.constant(0.0, x.dtype(), &x.dims());
        zeros.less(x).select(x.square(), zeros)
    })
}

pub fn softcap<'c>(given: &Given<'c>) -> Outputs<'c> {
    let cap = given.number("c");
    function(given, |x| (x * (1.0 / cap)).tanh() * cap)
}
