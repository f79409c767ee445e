//! AdamW: Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).

use plugin_api::prelude::*;

options! {
    /// m and v are moving averages of the gradient and its square.
    pub struct AdamW {
        /// Decay of m.
        #[schemars(range(min = 0.0, max = 0.999999))]
        pub beta1: f64 = 0.9,
        /// Decay of v.
        #[schemars(range(min = 0.0, max = 0.999999))]
        pub beta2: f64 = 0.95,
        /// Added to sqrt(v).
        #[schemars(range(min = 1e-16, max = 1.0))]
        pub eps: f64 = 1e-8,
        /// Decoupled decay of matrices and embeddings, times the learning rate. Gains, biases, scalars do not decay.
        #[schemars(range(min = 0.0))]
        pub weight_decay: f64 = 0.01,
        /// Whether embeddings decay too; a head tied to them is one with them.
        pub decay_embeddings: bool = true,
    }
}

impl AdamW {
    fn decay(&self, role: Role) -> f64 {
        let decays = match role {
            Role::Matrix => true,
            Role::Embedding => self.decay_embeddings,
            _ => false,
        };
        if decays { self.weight_decay } else { 0.0 }
    }
}

impl Optimizer for AdamW {
    fn update<'c>(&self, cx: &'c Cx<'c>, group: Group<'c>) -> Tensor<'c> {
        let Group { role, parameter: p, gradient: g } = group;
        let (m, v) = (cx.optimizer_state("m", &p.dims()), cx.optimizer_state("v", &p.dims()));
        let lr = cx.learning_rate();

        let m_new = m * self.beta1 + g * (1.0 - self.beta1);
        let v_new = v * self.beta2 + g.square() * (1.0 - self.beta2);
        cx.write(m, m_new);
        cx.write(v, v_new);

        let m_hat = m_new * cx.bias_correction(self.beta1).recip();
        let v_hat = v_new * cx.bias_correction(self.beta2).recip();
        p - lr * (m_hat / (v_hat.sqrt() + self.eps) + p * self.decay(role))
    }
}

component! { optimizer "adamw" => AdamW, "Adam with decoupled weight decay." }
export_plugin!();
