//! Gradients of gradients: Hessian-vector products, a penalty on a gradient's norm, learning inside the loss.

use plugin_api::{Op, Tensor};

use super::attention::attend;
use super::recurrence;
use super::trace::{Given, Outputs};

/// Parameters of the two-layer network.
const WEIGHTS: [&str; 7] = ["W1", "b1", "W2", "b2", "gain", "bias", "E"];

/// Mean cross-entropy of layer_norm(gelu(x W1' + b1) W2' + b2) E'.
fn mlp_loss<'c>(given: &Given<'c>) -> Tensor<'c> {
    given.fixed("eps", 1e-5);
    let (cx, width) = (given.cx, |name: &str| given.x(name).dim(0));
    let h = cx.bias("b1", cx.linear("W1", given.x("x"), width("W1"))).gelu();
    let h = cx.bias("b2", cx.linear("W2", h, width("W2")));
    let h = cx.layer_norm("norm", h, true);
    let table = cx.embedding("E", width("E"), h.dim(-1));
    cx.linear_cross_entropy(h, table, given.x("targets")).mean(&[0]).reshape(&[])
}

/// The loss, its gradient g in each of `names`, <g, v> for the case's direction v, and the gradient of that.
fn hessian_vector<'c>(given: &Given<'c>, loss: Tensor<'c>, names: &[&str]) -> Outputs<'c> {
    let inputs: Vec<Tensor<'c>> = names.iter().map(|name| given.x(name)).collect();
    let gradients = given.cx.grad(loss, &inputs);
    let along = names.iter().zip(&gradients).map(|(name, g)| (*g * given.x(&format!("v_{name}"))).total());
    let Some(directional) = along.reduce(|sum, term| sum + term) else { return Outputs::new() };
    let products = given.cx.grad(directional, &inputs);
    let named = |prefix: &'static str| names.iter().map(move |name| format!("{prefix}_{name}"));
    let mut outputs: Outputs<'c> =
        vec![("loss".into(), loss), ("directional_derivative".into(), directional)];
    outputs.extend(named("grad").zip(gradients));
    outputs.extend(named("hvp").zip(products));
    outputs
}

pub fn hvp_mlp<'c>(given: &Given<'c>) -> Outputs<'c> {
    hessian_vector(given, mlp_loss(given), &[&["x"][..], &WEIGHTS].concat())
}

pub fn hvp_attention<'c>(given: &Given<'c>) -> Outputs<'c> {
    let names = ["q", "k", "v"];
    let [q, k, v] = names.map(|name| given.x(name));
    let miss = attend(given, q, k, v) - given.x("target");
    hessian_vector(given, miss.square().total() * 0.5, &names)
}

pub fn hvp_gated_delta_rule<'c>(given: &Given<'c>) -> Outputs<'c> {
    let (o_bhtv, state_bhvk) = recurrence::delta_tokens(given).call(given.x("S0"));
    let miss = o_bhtv - given.x("target");
    let loss = (miss.square().total() + state_bhvk.square().total()) * 0.5;
    hessian_vector(given, loss, &["q", "k", "v", "beta", "alpha", "S0"])
}

pub fn gradient_norm_penalty<'c>(given: &Given<'c>) -> Outputs<'c> {
    let weights = WEIGHTS.map(|name| given.x(name));
    let loss = mlp_loss(given);
    let gradients = given.cx.grad(loss, &weights);
    let squared = gradients.into_iter().map(|g| g.square().total()).reduce(|sum, term| sum + term);
    let Some(squared) = squared else { return Outputs::new() };
    let total = loss + squared * (0.5 * given.number("lambda"));
    let mut outputs: Outputs<'c> =
        vec![("loss".into(), loss), ("grad_norm_squared".into(), squared), ("total".into(), total)];
    let names = WEIGHTS.iter().map(|name| format!("total_grad_{name}"));
    outputs.extend(names.zip(given.cx.grad(total, &weights)));
    outputs
}

/// A two-layer memory takes gradient steps towards (keys, values); the outer loss is of a query afterwards.
pub fn through_inner_steps<'c>(given: &Given<'c>) -> Outputs<'c> {
    let cx = given.cx;
    let [keys, values, query, answer] = ["keys", "values", "query", "answer"].map(|name| given.x(name));
    let miss = |[w1, w2]: [Tensor<'c>; 2], u: Tensor<'c>, wanted: Tensor<'c>| {
        (u.dot_last(w1).gelu().dot_last(w2) - wanted).square().total() * (1.0 / u.dim(0) as f64)
    };
    let initial = ["W1", "W2"].map(|name| given.x(name));
    let rate = given.x("eta_logit").sigmoid() * given.number("eta");
    let (mut weights, mut losses) = (initial, Vec::new());
    for _ in 0..given.number("inner_steps") as usize {
        let loss = miss(weights, keys, values);
        losses.push(loss.reshape(&[1]));
        let steps = cx.grad(loss, &weights);
        weights = [0, 1].map(|i: usize| weights[i] - rate * steps[i]);
    }
    let outer = miss(weights, query, answer);
    let mut outputs: Outputs<'c> = vec![
        ("inner_losses".into(), cx.emit(Op::Concat, &losses, &[0], &[])),
        ("W1_final".into(), weights[0]),
        ("W2_final".into(), weights[1]),
        ("outer_loss".into(), outer),
    ];
    let names = ["W1", "W2", "eta_logit", "keys", "values"];
    let gradients = cx.grad(outer, &names.map(|name| given.x(name)));
    outputs.extend(names.iter().map(|name| format!("grad_{name}")).zip(gradients));
    outputs
}
