//! The learning rate of each step.

use crate::config::{ScheduleKind, Train};

/// Rate of `step` (counted from 0) in a schedule of `total` steps: a linear rise over the warm-up, then constant,
/// a half cosine, or constant with a linear fall over the last `decay` of all steps. After `total` the last rate stays.
pub fn learning_rate(train: &Train, step: u64, total: u64) -> f64 {
    if step < train.warmup {
        return train.lr * (step + 1) as f64 / train.warmup as f64;
    }
    let last = train.lr * train.final_lr;
    let part = |from: f64| {
        let span = (total as f64 - from).max(1.0);
        ((step as f64 - from) / span).clamp(0.0, 1.0)
    };
    match train.schedule {
        ScheduleKind::Constant => train.lr,
        ScheduleKind::Cosine => {
            let turn = std::f64::consts::PI * part(train.warmup as f64);
            last + (train.lr - last) * 0.5 * (1.0 + turn.cos())
        }
        ScheduleKind::Linear => {
            let from = (total as f64 * (1.0 - train.decay)).max(train.warmup as f64);
            train.lr + (last - train.lr) * part(from)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_rise_hold_and_fall() {
        let train =
            |schedule| Train { lr: 1.0, warmup: 10, schedule, final_lr: 0.1, decay: 0.4, ..Train::default() };
        let cosine = train(ScheduleKind::Cosine);
        assert!((learning_rate(&cosine, 0, 100) - 0.1).abs() < 1e-12);
        assert!((learning_rate(&cosine, 9, 100) - 1.0).abs() < 1e-12);
        assert!((learning_rate(&cosine, 55, 100) - 0.55).abs() < 1e-12);
        assert!((learning_rate(&cosine, 500, 100) - 0.1).abs() < 1e-12);
        let linear = train(ScheduleKind::Linear);
        assert!((learning_rate(&linear, 59, 100) - 1.0).abs() < 1e-12);
        assert!((learning_rate(&linear, 80, 100) - 0.55).abs() < 1e-12);
        assert!((learning_rate(&train(ScheduleKind::Constant), 99, 100) - 1.0).abs() < 1e-12);
    }
}
