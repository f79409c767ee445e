//! Muon: momentum, orthogonalised by Newton-Schulz iterations (Jordan et al. 2024, kellerjordan.github.io/posts/muon).
//!
//! Shapes: k matrices of one shape in a stack, M rows, N columns.

use plugin_api::prelude::*;

options! {
    /// The update U V' of a matrix whose momentum is U S V'. Other parameters than matrices go to the fallback.
    pub struct Muon {
        /// Decay of the momentum, a moving average of the gradient.
        #[schemars(range(min = 0.0, max = 0.999999))]
        pub momentum: f64 = 0.95,
        /// Looks ahead: averages the gradient once more with the new momentum.
        pub nesterov: bool = true,
        /// Newton-Schulz iterations.
        #[schemars(range(min = 1, max = 20))]
        pub ns_steps: usize = 5,
        /// Size of the update of a matrix by its shape.
        pub scale_rule: ScaleRule = ScaleRule::MatchRmsAdamW,
        /// Decoupled decay, times the learning rate.
        #[schemars(range(min = 0.0))]
        pub weight_decay: f64 = 0.01,
        /// Optimizer of embeddings, gains, biases and everything else that is no matrix of weights.
        pub fallback: String = "adamw".into(),
        /// Learning rate of the fallback as a factor of the schedule's.
        #[schemars(range(min = 0.0))]
        pub fallback_lr: f64 = 1.0,
    }
}

options! {
    /// Size of the update of a matrix by its shape.
    pub enum ScaleRule {
        /// sqrt(max(1, M / N)): as in the original. Its learning rate is larger than AdamW's, some 0.02.
        Original,
        /// 0.2 sqrt(max(M, N)): elements as large as AdamW's, whose learning rate it shares (Liu et al. 2025,
        /// arXiv 2502.16982, eq. 4).
        #[serde(rename = "match_rms_adamw")]
        MatchRmsAdamW,
    }
}

/// a, b, c of the iteration: chosen for a steep start, so that singular values end between 0.7 and 1.2.
pub const QUINTIC: [f64; 3] = [3.4445, -4.7750, 2.0315];

/// Smallest norm that a matrix is divided by: one of zeros stays zero.
pub const SMALLEST_NORM: f64 = 1e-7;

impl Optimizer for Muon {
    fn layout(&self, role: Role) -> Layout {
        if role == Role::Matrix { Layout::Stacked } else { Layout::NotTaken }
    }

    fn update<'c>(&self, cx: &'c Cx<'c>, group: Group<'c>) -> Tensor<'c> {
        let Group { parameter: p_kmn, gradient: g_kmn, .. } = group;
        let (lr, mu) = (cx.learning_rate(), self.momentum);

        let m_kmn = cx.optimizer_state("momentum", &p_kmn.dims());
        let m_new = m_kmn * mu + g_kmn * (1.0 - mu);
        cx.write(m_kmn, m_new);
        let u_kmn = if self.nesterov { g_kmn * (1.0 - mu) + m_new * mu } else { m_new };

        let o_kmn = newton_schulz(u_kmn, self.ns_steps);
        let scale = self.scale_rule.scale(p_kmn.dim(1) as f64, p_kmn.dim(2) as f64);
        p_kmn * (1.0 - lr * self.weight_decay) - (lr * scale) * o_kmn
    }
}

impl ScaleRule {
    fn scale(self, rows: f64, columns: f64) -> f64 {
        match self {
            ScaleRule::Original => (rows / columns).max(1.0).sqrt(),
            ScaleRule::MatchRmsAdamW => 0.2 * rows.max(columns).sqrt(),
        }
    }
}

/// Nearly U V' of each matrix U S V' of the stack `[k, M, N]`, which it keeps as its shape:
/// X <- X / ||X||, then `steps` times A = X X', X <- a X + (b A + c A^2) X.
#[track_caller]
pub fn newton_schulz(g_kmn: Tensor<'_>, steps: usize) -> Tensor<'_> {
    // A is smaller where rows are the shorter side.
    if g_kmn.dim(1) > g_kmn.dim(2) {
        return newton_schulz(g_kmn.transposed(), steps).transposed();
    }
    let [a, b, c] = QUINTIC;
    let norm_k11 = g_kmn.square().sum(&[1, 2]).sqrt();
    let floor = g_kmn.cx().constant(SMALLEST_NORM, g_kmn.dtype(), &norm_k11.dims());
    let mut x_kmn = g_kmn * norm_k11.max(floor).recip();
    for _ in 0..steps {
        let a_kmm = x_kmn.matmul(x_kmn.transposed());
        let b_kmm = a_kmm.matmul_add(c, a_kmm, b, a_kmm);
        x_kmn = b_kmm.matmul_add(1.0, x_kmn, a, x_kmn);
    }
    x_kmn
}

component! { optimizer "muon" => Muon, "Momentum of matrices, orthogonalised; other parameters go to a fallback." }
export_plugin!();
