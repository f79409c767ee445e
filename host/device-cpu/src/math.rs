//! sin, cos, exp, log, tanh, erf and floor on f32, as polynomials of our own.
//!
//! A system library differs between machines and does not vectorise. These are branch-free (both sides are
//! computed and one is selected) and use nothing that rounds differently between instruction sets, so the portable, AVX2
//! and AVX-512 builds of a loop over them give the same bits: products and sums that are fused are fused by all, if need be
//! in double precision. The long ones take several numbers abreast. Errors are stated per function, in units in the last place (ulp), and tested against f64 below.

use crate::abreast::Abreast;

/// `x + ROUND - ROUND` is x rounded to an integer for |x| < 2^22, and the low bits of `x + ROUND` hold it.
const ROUND: f32 = 12_582_912.0;
const ROUND_F64: f64 = 6_755_399_441_055_744.0;

#[inline(always)]
fn select(condition: bool, yes: f32, no: f32) -> f32 {
    if condition { yes } else { no }
}

#[inline(always)]
fn with_sign(magnitude: f32, sign: f32) -> f32 {
    f32::from_bits((magnitude.to_bits() & 0x7fff_ffff) | (sign.to_bits() & 0x8000_0000))
}

/// e^x within 1 ulp. 0 below -87.33654 (where the result would be subnormal), inf from 88.72284 on.
#[inline(always)]
pub fn exp<const N: usize, const FUSES: bool>(x: Abreast<N, FUSES>) -> Abreast<N, FUSES> {
    // At the bound itself the exponent is that of infinity, and what is left of p would make it a NaN.
    x.with(exp_within(x.map(clamp_exponent)), bound_exponential)
}

/// e^x where neither it nor x leaves what a normal number can be; else anything.
#[inline(always)]
fn exp_within<const N: usize, const FUSES: bool>(x: Abreast<N, FUSES>) -> Abreast<N, FUSES> {
    // e^x = 2^n e^r with |r| <= ln(2) / 2. ln(2) is cut in two so that n times the first part is exact (Cephes expf).
    let shifted = x.fma(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.fma(2.121_944_4e-4, n.fma(-0.693_359_4, x));
    let p = r.fma(1.987_569_1e-4, 1.398_199_9e-3);
    let p = p.fma(r, 8.333_452e-3);
    let p = p.fma(r, 4.166_579_6e-2);
    let p = p.fma(r, 1.666_666_5e-1);
    let p = p.fma(r, 5e-1);
    // One after the other, 1 + r (1 + r p) errs by less than r + r^2 p, rounded, and 1.
    let p = p.fma(r, 1.0).fma(r, 1.0);
    p.with(shifted, scale)
}

#[inline(always)]
fn clamp_exponent(x: f32) -> f32 {
    select(x < -87.33654, -87.33654, select(x > 88.722_84, 88.722_84, x))
}

/// p 2^n, where `shifted` is n + [`ROUND`].
#[inline(always)]
fn scale(p: f32, shifted: f32) -> f32 {
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

#[inline(always)]
fn bound_exponential(x: f32, scaled: f32) -> f32 {
    let bounded = select(x < -87.33654, 0.0, select(x >= 88.722_84, f32::INFINITY, scaled));
    select(x.is_nan(), x, bounded)
}

/// Natural logarithm within 1 ulp, subnormals included. -inf at 0, NaN below.
#[inline(always)]
pub fn log<const N: usize, const FUSES: bool>(x: Abreast<N, FUSES>) -> Abreast<N, FUSES> {
    // x = 2^k (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)); log(1 + f) by the series in s = f / (2 + f) (FreeBSD logf).
    let k = x.map(binary_exponent);
    let f = x.map(binary_fraction);
    let s = f / (2.0 + f);
    let z = s * s;
    let w = z * z;
    let series = z * (0.666_666_6 + w * 0.284_987_87) + w * (0.400_009_72 + w * 0.242_790_79);
    let half_square = 0.5 * f * f;
    let finite = s * (half_square + series) + k * 9.058_001e-6 - half_square + f + k * 0.693_138_1;
    x.with(finite, bound_logarithm)
}

/// The bits of x, of subnormals times 2^25, moved so that the exponent changes at sqrt(1/2); and the exponent of 1.
#[inline(always)]
fn moved_bits(x: f32) -> (u32, i32) {
    let is_subnormal = x < f32::MIN_POSITIVE;
    let bits = select(is_subnormal, x * 33_554_432.0, x).to_bits();
    (bits.wrapping_add(0x3f80_0000 - 0x3f35_04f3), if is_subnormal { 127 + 25 } else { 127 })
}

#[inline(always)]
fn binary_exponent(x: f32) -> f32 {
    let (bits, bias) = moved_bits(x);
    ((bits >> 23) as i32).wrapping_sub(bias) as f32
}

#[inline(always)]
fn binary_fraction(x: f32) -> f32 {
    let (bits, _) = moved_bits(x);
    f32::from_bits((bits & 0x007f_ffff) + 0x3f35_04f3) - 1.0
}

#[inline(always)]
fn bound_logarithm(x: f32, finite: f32) -> f32 {
    let at_edges = select(x == 0.0, f32::NEG_INFINITY, select(x == f32::INFINITY, x, finite));
    select(x < 0.0 || x.is_nan(), f32::NAN, at_edges)
}

/// Sine and cosine polynomials on [-pi/4, pi/4] in f64 (FreeBSD __sindf, __cosdf), and the quadrant of x.
#[inline(always)]
fn quadrant(x: f32) -> (f64, f64, u32) {
    // pi/2 is cut in two so that n times the first part is exact for |n| < 2^28.
    let x = f64::from(x);
    let shifted = x * std::f64::consts::FRAC_2_PI + ROUND_F64;
    let n = shifted - ROUND_F64;
    let r = x - n * 1.570_796_310_901_641_8 - n * 1.589_325_477_352_819_6e-8;
    let z = r * r;
    let w = z * z;
    let sine = (r + z * r * (-0.166_666_666_416_265_24 + z * 0.008_333_329_385_889_463))
        + z * r * w * (-0.000_198_393_348_360_966_32 + z * 2.718_311_493_989_822e-6);
    let cosine = ((1.0 + z * -0.499_999_997_251_031) + w * 0.041_666_623_323_739_06)
        + w * z * (-0.001_388_676_377_460_993 + z * 0.000_024_390_448_796_277_41);
    (sine, cosine, shifted.to_bits() as u32)
}

/// Sine of radians within 0.51 ulp for |x| < 4e8; beyond that the result is not accurate. NaN at infinities.
#[inline(always)]
pub fn sin(x: f32) -> f32 {
    let (sine, cosine, quadrant) = quadrant(x);
    let value = if quadrant & 1 == 0 { sine } else { cosine } as f32;
    // The polynomial loses the sign of -0.
    select(x == 0.0, x, f32::from_bits(value.to_bits() ^ ((quadrant & 2) << 30)))
}

/// Cosine of radians within 0.51 ulp for |x| < 4e8; beyond that the result is not accurate. NaN at infinities.
#[inline(always)]
pub fn cos(x: f32) -> f32 {
    let (sine, cosine, quadrant) = quadrant(x);
    let value = if quadrant & 1 == 0 { cosine } else { sine } as f32;
    f32::from_bits(value.to_bits() ^ ((quadrant.wrapping_add(1) & 2) << 30))
}

/// Hyperbolic tangent within 2 ulp.
#[inline(always)]
pub fn tanh<const N: usize, const FUSES: bool>(x: Abreast<N, FUSES>) -> Abreast<N, FUSES> {
    let t = x.map(f32::abs);
    let z = x * x;
    // Cephes tanhf below 0.625, where 1 - 2 / (e^2x + 1) would cancel.
    let p = z.fma(-5.704_988_7e-3, 2.063_909e-2);
    let p = p.fma(z, -5.373_971_6e-2);
    let p = p.fma(z, 1.333_144_2e-1);
    let p = p.fma(z, -3.333_328e-1);
    let near = (p * z).fma(x, x);
    let far = 1.0 - 2.0 / (exp(t + t) + 1.0);
    x.choose(|x| x.abs() < 0.625, near, far).with(x, with_sign)
}

/// Error function within 2 ulp.
#[inline(always)]
pub fn erf<const N: usize, const FUSES: bool>(x: Abreast<N, FUSES>) -> Abreast<N, FUSES> {
    // Two minimax polynomials by N. Juffa: x (1 + p(x^2)) near 0, and 1 - e^(p(|x|)) beyond 475/512.
    let t = x.map(f32::abs);
    let s = x * x;
    let p = s.fma(-5.967_617e-4, 4.991_194_2e-3);
    let p = p.fma(s, -2.676_813_5e-2);
    let p = p.fma(s, 1.128_199_3e-1);
    let p = p.fma(s, -3.761_253_4e-1);
    let p = p.fma(s, 1.283_791_7e-1);
    let near = p.fma(x, x);
    let r = t.fma(-1.728_534_7e-5, 3.831_971_3e-4);
    let u = t.fma(-3.883_964_4e-3, 2.425_462_2e-2);
    let r = r.fma(s, u);
    let r = r.fma(t, -1.067_778_8e-1);
    let r = r.fma(t, -6.348_467e-1);
    let r = r.fma(t, -1.287_175_1e-1);
    let r = r.fma(t, 0.0 - t);
    // Beyond 4 the result is 1: the polynomial must not be asked where it turns. Up to there r is above -17.
    let far = (1.0 - exp_within(r)).with(x, |far, x| with_sign(select(x.abs() > 4.0, 1.0, far), x));
    x.choose(|x| x.abs() > 0.927_734_4, far, near)
}

/// Largest integer not above x, exact.
#[inline(always)]
pub fn floor(x: f32) -> f32 {
    const INTEGRAL: f32 = 8_388_608.0;
    let nearest = with_sign((x.abs() + INTEGRAL) - INTEGRAL, x);
    let below = select(nearest > x, nearest - 1.0, nearest);
    select(x.abs() < INTEGRAL, below, x)
}

#[cfg(test)]
mod tests {
    use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

    use super::*;

    /// One number through a formula.
    fn one(formula: fn(Abreast<1, true>) -> Abreast<1, true>, x: f32) -> f32 {
        formula(Abreast([x])).0[0]
    }

    fn exp(x: f32) -> f32 {
        one(super::exp, x)
    }

    fn log(x: f32) -> f32 {
        one(super::log, x)
    }

    fn tanh(x: f32) -> f32 {
        one(super::tanh, x)
    }

    fn our_erf(x: f32) -> f32 {
        one(super::erf, x)
    }

    unsafe extern "C" {
        safe fn erf(x: f64) -> f64;
    }

    /// A function of ours, the truth, the largest |x| it is stated for, and the bound in ulp.
    type Case = (&'static str, fn(f32) -> f32, fn(f64) -> f64, f32, f64);

    const CASES: [Case; 6] = [
        ("exp", exp, f64::exp, f32::MAX, 1.0),
        ("log", log, f64::ln, f32::MAX, 1.0),
        ("sin", super::sin, f64::sin, 4e8, 0.51),
        ("cos", super::cos, f64::cos, 4e8, 0.51),
        ("tanh", tanh, f64::tanh, f32::MAX, 2.0),
        ("erf", our_erf, |x| erf(x), f32::MAX, 2.0),
    ];

    /// Error in units in the last place of the f32 nearest to the truth; infinite where only one of them is a number.
    /// Where that f32 is subnormal, so is the unit, but a result may be zero instead.
    fn error(ours: f32, want: f64) -> f64 {
        let nearest = want as f32;
        if ours == nearest && !nearest.is_finite() || ours.is_nan() && want.is_nan() {
            return 0.0;
        }
        if nearest.is_subnormal() && ours == 0.0 {
            return 0.0;
        }
        let power = f32::from_bits((nearest.to_bits() & 0x7f80_0000).max(f32::MIN_POSITIVE.to_bits()));
        let unit = f64::from(power) * f64::from(f32::EPSILON);
        match (f64::from(ours) - want).abs() / unit {
            error if error.is_nan() => f64::INFINITY,
            error => error,
        }
    }

    /// Largest error over the floats of both signs with these bits, and where.
    fn worst(case: &Case, bits: impl Iterator<Item = u32>) -> (f64, f32) {
        let (_, ours, truth, limit, _) = *case;
        let xs = bits.map(f32::from_bits).filter(|x| *x <= limit).flat_map(|x| [x, -x]);
        xs.map(|x| (error(ours(x), truth(f64::from(x))), x))
            .fold((0.0, 0.0), |most, next| if next.0 > most.0 { next } else { most })
    }

    fn holds(case: &Case, grid: &str, (error, at): (f64, f32)) {
        let (name, .., bound) = *case;
        println!("{name} over {grid}: {error:.4} ulp at {at:e}");
        assert!(error <= bound, "{name} over {grid}: {error} ulp at {at:e}, stated {bound}");
    }

    const INFINITE: u32 = 0x7f80_0000;

    /// A stride that is prime to all powers of two meets every exponent, subnormal numbers included, at mantissas of
    /// every kind.
    #[test]
    fn errors_are_as_stated() {
        CASES.iter().for_each(|case| holds(case, "a stride", worst(case, (0..=INFINITE).step_by(151))));
    }

    /// All floats near the places where a function changes its formula: powers of two, bounds of a selection, and
    /// multiples of pi / 4, where sines lose all digits but those of the reduction.
    #[test]
    fn errors_are_as_stated_where_formulas_meet() {
        let bounds = [87.336_54, 88.722_84, 103.97, 0.625, 0.927_734_4, 4.0, 9.01, FRAC_1_SQRT_2, SQRT_2];
        let powers = (0..255).map(|exponent: u32| exponent << 23);
        let near = |bits: u32, reach: u32| bits.saturating_sub(reach)..=(bits + reach).min(INFINITE);
        let quarters = (1..40_000).map(|k| (f64::from(k) * std::f64::consts::FRAC_PI_4) as f32);
        // Up to the end of what is stated, each about 1.001 times the one before.
        let far = (0..12_000).map(|k| (f64::from(k) * 1e-3).exp() * std::f64::consts::FRAC_PI_2);
        let far =
            far.map(|x| ((x / std::f64::consts::FRAC_PI_2).round() * std::f64::consts::FRAC_PI_2) as f32);
        let grid: Vec<u32> = bounds
            .into_iter()
            .flat_map(|x: f32| near(x.to_bits(), 20_000))
            .chain(powers.flat_map(|bits| near(bits, 2_000)))
            .chain(quarters.chain(far).flat_map(|x| near(x.to_bits(), 8)))
            .collect();
        CASES.iter().for_each(|case| holds(case, "edges", worst(case, grid.iter().copied())));
    }

    #[test]
    #[ignore = "takes minutes: for whoever changes a polynomial"]
    fn errors_are_as_stated_for_every_float() {
        CASES.iter().for_each(|case| holds(case, "all floats", worst(case, 0..=INFINITE)));
    }

    #[test]
    fn edges_are_exact() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        assert_eq!(
            [exp(0.0), exp(-inf), exp(inf), exp(-1e30), exp(-88.0), exp(89.0)],
            [1.0, 0.0, inf, 0.0, 0.0, inf]
        );
        assert_eq!(
            [exp(88.722_84), tanh(44.361_42)],
            [inf, 1.0],
            "where the power of two is that of infinity"
        );
        assert_eq!([log(1.0), log(0.0), log(-0.0), log(inf)], [0.0, -inf, -inf, inf]);
        assert_eq!([log(1e-45), log(f32::MIN_POSITIVE)], [-103.278_93, -87.336_55]);
        assert_eq!([tanh(inf), tanh(-inf), our_erf(inf), our_erf(-inf)], [1.0, -1.0, 1.0, -1.0]);
        assert_eq!([sin(0.0), cos(0.0), tanh(0.0), our_erf(0.0)], [0.0, 1.0, 0.0, 0.0]);
        for function in [exp, log, sin, cos, tanh, our_erf, floor] {
            assert!(function(nan).is_nan());
        }
        assert!(sin(inf).is_nan() && cos(-inf).is_nan() && log(-1.0).is_nan() && log(-inf).is_nan());
        let odd = [sin, tanh, our_erf, floor];
        assert!(odd.iter().all(|function| function(-0.0).to_bits() == 0x8000_0000));
    }

    #[test]
    fn floor_is_exact() {
        for bits in (0..u32::MAX).step_by(4099) {
            let x = f32::from_bits(bits);
            assert!(x.is_nan() || floor(x).to_bits() == x.floor().to_bits(), "{x}");
        }
    }
}
