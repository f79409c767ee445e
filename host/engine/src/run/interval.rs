//! 95 % intervals of what an evaluation measured: how far a number may be off because few windows were read. They say
//! nothing about seeds: another training run has another model.

/// Standard normal quantile of 97.5 %.
const NORMAL: f64 = 1.959964;

/// Ratio of two sums over windows, such as bits by bytes, with its interval. Windows are what was drawn, so bytes of
/// one window may depend on each other. `parts` are (numerator, denominator) of each window; those of 0 count too.
///
/// None where the denominators sum to 0.
pub(super) fn ratio(parts: &[(f64, f64)]) -> Option<(f64, [f64; 2])> {
    let sum = |part: fn(&(f64, f64)) -> f64| parts.iter().map(part).sum::<f64>();
    let (above, below) = (sum(|part| part.0), sum(|part| part.1));
    if below == 0.0 {
        return None;
    }
    let ratio = above / below;
    let squares: f64 = parts.iter().map(|(above, below)| (above - ratio * below).powi(2)).sum();
    let count = parts.len() as f64;
    let error = (squares * count / (count - 1.0).max(1.0)).sqrt() / below;
    Some((ratio, [ratio - NORMAL * error, ratio + NORMAL * error]))
}

/// Wilson's interval of a share, `right` of `count` trials (Wilson 1927): within 0 and 1, and of some width even where
/// all or none are right.
pub(super) fn wilson(right: usize, count: usize) -> [f64; 2] {
    if count == 0 {
        return [0.0, 1.0];
    }
    let (share, count) = (right as f64 / count as f64, count as f64);
    let weight = NORMAL * NORMAL / count;
    let middle = (share + weight / 2.0) / (1.0 + weight);
    let half = NORMAL / (1.0 + weight) * (share * (1.0 - share) / count + weight / (4.0 * count)).sqrt();
    [(middle - half).max(0.0), (middle + half).min(1.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: [f64; 2], wanted: [f64; 2]) {
        let gap = found.iter().zip(wanted).map(|(found, wanted)| (found - wanted).abs()).fold(0.0, f64::max);
        assert!(gap < 5e-5, "{found:?} is not {wanted:?}");
    }

    #[test]
    fn shares_have_the_intervals_of_wilson() {
        // By hand: 81 of 263 is Newcombe's (1998) example.
        near(wilson(81, 263), [0.2553, 0.3662]);
        near(wilson(0, 20), [0.0, 0.1611]);
        near(wilson(20, 20), [0.8389, 1.0]);
        near(wilson(0, 0), [0.0, 1.0]);
    }

    #[test]
    fn equal_windows_give_the_mean_and_its_standard_error() {
        let bits = [1.0, 2.0, 4.0, 5.0];
        let (mean, interval) = ratio(&bits.map(|bits| (8.0 * bits, 8.0))).unwrap(); // bytes were counted
        assert_eq!(mean, 3.0);
        // Variance 10 / 3 of a window, of four windows: error sqrt(10 / 12).
        let half = NORMAL * (10.0f64 / 12.0).sqrt();
        near(interval, [3.0 - half, 3.0 + half]);
    }

    #[test]
    fn windows_without_such_bytes_widen_nothing_but_the_count() {
        assert_eq!(ratio(&[(0.0, 0.0), (0.0, 0.0)]), None);
        let (mean, interval) = ratio(&[(2.0, 2.0), (0.0, 0.0), (3.0, 3.0)]).unwrap(); // bytes were counted
        assert_eq!((mean, interval), (1.0, [1.0, 1.0]));
        let (_, interval) = ratio(&[(2.0, 1.0)]).unwrap(); // bytes were counted
        assert!(interval.iter().all(|bound| bound.is_finite()));
    }
}
