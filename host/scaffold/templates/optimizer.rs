//! @NAME@: descent with momentum and decoupled weight decay (Sutskever et al. 2013, eq. 1 and 2).

use plugin_api::prelude::*;

options! {
    /// m <- mu m + g, p <- p - lr (m + decay p)
    pub struct @TYPE@ {
        /// Decay mu of the momentum m.
        #[schemars(range(min = 0.0, max = 0.999999))]
        pub momentum: f64 = 0.9,
        /// Decoupled decay of weight matrices, times the learning rate.
        #[schemars(range(min = 0.0))]
        pub weight_decay: f64 = 0.0,
    }
}

impl Optimizer for @TYPE@ {
    fn update<'c>(&self, cx: &'c Cx<'c>, group: Group<'c>) -> Tensor<'c> {
        // All parameters of a role at once: p and g are [n], and what is written is read in the next step.
        let Group { role, parameter: p, gradient: g } = group;
        let m = cx.optimizer_state("momentum", &p.dims());
        let m_new = m * self.momentum + g;
        cx.write(m, m_new);

        let decay = if role == Role::Matrix { self.weight_decay } else { 0.0 };
        p - cx.learning_rate() * (m_new + p * decay)
    }
}

component! { optimizer "@NAME@" => @TYPE@, "@SUMMARY@" }
export_plugin!();

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_testing::{F32, trace};

    #[test]
    fn a_step_is_what_the_formula_says() {
        let optimizer = @TYPE@ { momentum: 0.5, weight_decay: 1.0 };
        let inputs = [("p", F32, &[2][..]), ("g", F32, &[2][..])];
        let traced = trace(&inputs, |cx, x| {
            let group = Group { role: Role::Matrix, parameter: x[0], gradient: x[1] };
            vec![optimizer.update(cx, group)]
        });
        let given: [(&str, &[f64]); 4] =
            [("p", &[2.0, 4.0]), ("g", &[1.0, -1.0]), ("momentum", &[2.0, 0.0]), ("learning_rate", &[0.25])];
        let values = traced.unwrap().run(&given).unwrap();
        assert_eq!(values.states["momentum"], [2.0, -1.0]);
        assert_eq!(values.outputs[0], [2.0 - 0.25 * (2.0 + 2.0), 4.0 - 0.25 * (-1.0 + 4.0)]);
    }
}
