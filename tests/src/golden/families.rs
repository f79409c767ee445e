//! Which runner a case gets: the first row whose pattern fits its name. `*` at the end fits any rest.

use super::trace::Build;
use super::{
    attention, clip, cms, elementwise, layer, loss, matrix, model, norm, random, recurrence, second_order,
    teach,
};

/// How the cases of a family are computed.
#[derive(Clone, Copy)]
pub enum Family {
    /// Traced with the façade of plugin authors; gradients are `grad` of it.
    Traced(Build),
    /// Steps of the optimizer component of this name.
    Optimizer(&'static str),
    /// A model's plugin, whole.
    Model(model::Run),
    /// Learning rates of the engine, which computes them in f64 on every device.
    Schedule,
}

use Family::{Model, Optimizer, Schedule, Traced};

const FAMILIES: &[(&str, Family)] = &[
    ("rms_norm*", Traced(norm::rms_norm)),
    ("layer_norm*", Traced(norm::layer_norm)),
    ("softmax*", Traced(norm::softmax)),
    ("logsumexp*", Traced(norm::log_sum_exp)),
    ("l2_normalize_rsqrt*", Traced(norm::l2_smooth)),
    ("l2_normalize*", Traced(norm::l2_bounded)),
    ("gelu_erf*", Traced(elementwise::gelu_erf)),
    ("gelu_tanh*", Traced(elementwise::gelu_tanh)),
    ("silu*", Traced(elementwise::silu)),
    ("sigmoid*", Traced(elementwise::sigmoid)),
    ("softplus*", Traced(elementwise::softplus)),
    ("relu_squared*", Traced(elementwise::relu_squared)),
    ("softcap*", Traced(elementwise::softcap)),
    ("swiglu_mlp*", Traced(layer::swiglu)),
    ("rope*", Traced(layer::rope)),
    ("embedding*", Traced(layer::embedding)),
    ("cross_entropy*", Traced(loss::cross_entropy)),
    ("linear_cross_entropy*", Traced(loss::linear_cross_entropy)),
    ("causal_conv1d*", Traced(layer::causal_conv)),
    ("cumsum*", Traced(layer::running_sums)),
    ("attention_causal*", Traced(attention::masked)),
    ("attention_sliding_window*", Traced(attention::masked)),
    ("attention_prefix*", Traced(attention::masked)),
    ("attention_past*", Traced(attention::after_a_past)),
    ("attention_decode*", Traced(attention::after_a_past)),
    ("attention_qk_l2norm_temperature*", Traced(attention::unit_with_temperature)),
    ("attention_qk_rmsnorm*", Traced(attention::rms_normed)),
    ("delta_rule*", Traced(recurrence::delta_rule)),
    ("gated_delta_rule*", Traced(recurrence::delta_rule)),
    ("linear_attention*", Traced(recurrence::linear_attention)),
    ("hvp_mlp*", Traced(second_order::hvp_mlp)),
    ("hvp_attention*", Traced(second_order::hvp_attention)),
    ("hvp_gated_delta_rule*", Traced(second_order::hvp_gated_delta_rule)),
    ("gradient_norm_penalty*", Traced(second_order::gradient_norm_penalty)),
    ("gradient_through_inner_steps*", Traced(second_order::through_inner_steps)),
    ("threefry2x32*", Traced(random::threefry)),
    ("clip_global_norm*", Traced(clip::global_norm)),
    ("schedules*", Schedule),
    ("nested-model-hope-attention*", Model(model::hope)),
    ("nested-model-transformer*", Model(model::transformer)),
    ("nested-teach-global*", Traced(teach::global)),
    ("nested-teach-layers*", Traced(teach::layers)),
    ("nested-teach-schedule*", Traced(teach::schedule)),
    ("nested-cms-gate*", Traced(cms::sequential)),
    ("nested-cms-sequential*", Traced(cms::sequential)),
    ("newton_schulz*", Traced(matrix::newton_schulz)),
    ("adamw*", Optimizer("adamw")),
    ("adafactor*", Optimizer("adafactor")),
    ("lion*", Optimizer("lion")),
    ("muon*", Optimizer("muon")),
    ("normuon*", Optimizer("normuon")),
    ("schedule_free_adamw*", Optimizer("schedule-free")),
    ("sgd*", Optimizer("sgd")),
    ("shampoo*", Optimizer("shampoo")),
    ("soap*", Optimizer("soap")),
];

/// The family of a case, by its name.
pub fn of(case: &str) -> Option<Family> {
    let fits = |pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => case.starts_with(start),
        None => case == pattern,
    };
    FAMILIES.iter().find(|(pattern, _)| fits(pattern)).map(|(_, family)| *family)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fitting_row_decides() {
        assert!(matches!(of("adamw"), Some(Optimizer("adamw"))));
        assert!(matches!(of("muon_match_rms_adamw"), Some(Optimizer("muon"))));
        assert!(matches!(of("schedules"), Some(Schedule)));
        assert!(of("gated_adamw").is_none());
    }
}
