//! The learning rate of each step.

use crate::config::{ScheduleKind, Train};

/// Rate of `step` (counted from 0) in a schedule of `total` steps: a linear rise over the warm-up, then constant, or a
/// fall to `final_lr` that the last step completes. After `total` the last rate stays.
pub fn learning_rate(train: &Train, step: u64, total: u64) -> f64 {
    // Schedules are written for the step being taken, counted from 1.
    let (number, total, warmup) = ((step + 1) as f64, total as f64, train.warmup as f64);
    if number <= warmup {
        return train.lr * number / warmup;
    }
    let last = train.lr * train.final_lr;
    let between = |share: f64| last + (train.lr - last) * share;
    // How much of the fall that begins after step `from` is done.
    let part = |from: f64| ((number - from) / (total - from).max(1.0)).clamp(0.0, 1.0);
    let stable = (total - (total * train.decay).round()).max(warmup);
    match train.schedule {
        ScheduleKind::Constant => train.lr,
        ScheduleKind::Linear => between(1.0 - part(warmup)),
        ScheduleKind::Cosine => between(0.5 * (1.0 + (std::f64::consts::PI * part(warmup)).cos())),
        ScheduleKind::WsdLinear => between(1.0 - part(stable)),
        ScheduleKind::WsdSqrt => between(1.0 - part(stable).sqrt()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(schedule: ScheduleKind, steps: [u64; 3]) -> [f64; 3] {
        let train = Train { lr: 1.0, warmup: 10, schedule, final_lr: 0.1, decay: 0.4, ..Train::default() };
        steps.map(|number| learning_rate(&train, number - 1, 100))
    }

    #[track_caller]
    fn near(actual: [f64; 3], expected: [f64; 3]) {
        let close = actual.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(close, "{actual:?} for {expected:?}");
    }

    #[test]
    fn every_schedule_rises_first_and_stays_at_the_end() {
        use ScheduleKind::*;
        for schedule in [Constant, Linear, Cosine, WsdLinear, WsdSqrt] {
            near(rates(schedule, [1, 5, 10]), [0.1, 0.5, 1.0]);
            let last = if schedule == Constant { 1.0 } else { 0.1 };
            near(rates(schedule, [100, 101, 500]), [last; 3]);
        }
    }

    #[test]
    fn schedules_fall_after_the_warm_up_or_at_the_end() {
        near(rates(ScheduleKind::Linear, [19, 55, 91]), [0.91, 0.55, 0.19]);
        near(rates(ScheduleKind::Cosine, [40, 55, 70]), [0.775, 0.55, 0.325]);
        near(rates(ScheduleKind::WsdLinear, [60, 70, 80]), [1.0, 0.775, 0.55]);
        near(rates(ScheduleKind::WsdSqrt, [60, 70, 100]), [1.0, 0.55, 0.1]);
    }

    #[test]
    fn a_schedule_shorter_than_its_warm_up_only_rises() {
        let train = Train { lr: 1.0, warmup: 10, ..Train::default() };
        assert_eq!(learning_rate(&train, 4, 5), 0.5);
    }

    #[test]
    fn without_a_decay_the_rate_is_held() {
        let train =
            Train { lr: 1.0, warmup: 0, schedule: ScheduleKind::WsdLinear, decay: 0.0, ..Train::default() };
        assert_eq!(learning_rate(&train, 99, 100), 1.0);
    }
}
