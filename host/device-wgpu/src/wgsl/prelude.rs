//! Functions that kernels call: our own polynomials, integer arithmetic that never fails, and random words.
//!
//! WGSL promises neither the accuracy of its functions nor that NaNs and infinities exist, so exp, log, sin, cos, tanh
//! and erf are polynomials (those of the CPU device where single precision suffices), NaNs are found by their bits, and
//! nothing relies on a rounding trick that a compiler may simplify away. A kernel's text holds the functions it calls
//! and no others.

/// Name and text; a function stands before those that it calls.
const FUNCTIONS: &[(&str, &str)] = &[
    ("exponential", EXPONENTIAL),
    ("hyperbolic_tangent", TANH),
    ("error_function", ERF),
    ("bounded_exponential", BOUNDED_EXPONENTIAL),
    ("exponential_within", EXPONENTIAL_WITHIN),
    ("logarithm", LOGARITHM),
    ("sine", SINE),
    ("cosine", COSINE),
    ("circular", CIRCULAR),
    ("quadrant", QUADRANT),
    ("wide_product", WIDE_PRODUCT),
    ("larger", "fn larger(x: f32, y: f32) -> f32 { return select(y, x, x > y || is_nan(y)); }\n"),
    ("smaller", "fn smaller(x: f32, y: f32) -> f32 { return select(y, x, x < y || is_nan(y)); }\n"),
    ("remainder_f32", REMAINDER),
    ("to_signed", TO_SIGNED),
    ("to_unsigned", TO_UNSIGNED),
    ("quotient_i32", QUOTIENT_I32),
    (
        "quotient_u32",
        "fn quotient_u32(x: u32, y: u32) -> u32 { return select(x / max(y, 1u), 0u, y == 0u); }\n",
    ),
    (
        "remainder_i32",
        "fn remainder_i32(x: i32, y: i32) -> i32 { return select(x % select(y, 1i, y == 0i || y == -1i), 0i, y == 0i || y == -1i); }\n",
    ),
    (
        "remainder_u32",
        "fn remainder_u32(x: u32, y: u32) -> u32 { return select(x % max(y, 1u), 0u, y == 0u); }\n",
    ),
    ("random_word", RANDOM_WORD),
    (
        "with_sign",
        "fn with_sign(magnitude: f32, sign: f32) -> f32 { return bitcast<f32>((bitcast<u32>(magnitude) & 0x7fffffffu) | (bitcast<u32>(sign) & 0x80000000u)); }\n",
    ),
    ("is_nan", "fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }\n"),
    ("float_of", "fn float_of(bits: u32) -> f32 { return bitcast<f32>(bits); }\n"),
    ("signed_of", "fn signed_of(bits: u32) -> i32 { return bitcast<i32>(bits); }\n"),
];

/// Appends the functions that a text calls, and those that they call.
pub fn add(text: &mut String) {
    for (name, function) in FUNCTIONS {
        if text.contains(&format!("{name}(")) {
            *text += function;
        }
    }
}

/// e^x = 2^n e^r with |r| <= ln(2) / 2 (Cephes expf).
const EXPONENTIAL_WITHIN: &str = "
fn exponential_within(x: f32) -> f32 {
    let n = round(x * 1.442695f);
    let r = (x - n * 0.6933594f) + n * 2.1219444e-4f;
    var p = 1.9875691e-4f * r + 1.3981999e-3f;
    p = p * r + 8.333452e-3f;
    p = p * r + 4.1665796e-2f;
    p = p * r + 1.6666665e-1f;
    p = p * r + 0.5f;
    p = (p * (r * r) + r) + 1.0f;
    return bitcast<f32>(bitcast<u32>(p) + (bitcast<u32>(i32(n)) << 23u));
}
";

const BOUNDED_EXPONENTIAL: &str = "
fn bounded_exponential(x: f32) -> f32 {
    let finite = exponential_within(clamp(x, -87.33654f, 88.72284f));
    return select(select(finite, float_of(0x7f800000u), x >= 88.72284f), 0.0f, x < -87.33654f);
}
";

const EXPONENTIAL: &str = "
fn exponential(x: f32) -> f32 {
    return select(bounded_exponential(x), x, is_nan(x));
}
";

/// x = 2^k (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)) (FreeBSD logf). Subnormal numbers are made normal as integers.
const LOGARITHM: &str = "
fn logarithm(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    let shift = max(countLeadingZeros(bits), 8u) - 8u;
    let moved = (bits << (shift & 31u)) + (0x3f800000u - 0x3f3504f3u);
    let k = f32(bitcast<i32>(moved >> 23u) - 127i - bitcast<i32>(shift));
    let f = bitcast<f32>((moved & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
    let s = f / (2.0f + f);
    let z = s * s;
    let w = z * z;
    let series = z * (0.6666666f + w * 0.28498787f) + w * (0.40000972f + w * 0.24279079f);
    let half_square = 0.5f * f * f;
    let finite = s * (half_square + series) + k * 9.058001e-6f - half_square + f + k * 0.6931381f;
    let above = select(bitcast<u32>(finite), bits, bits == 0x7f800000u);
    let number = select(above, 0x7fc00000u, bits > 0x7f800000u);
    return bitcast<f32>(select(number, 0xff800000u, (bits << 1u) == 0u));
}
";

/// Cephes tanhf below 0.625, where 1 - 2 / (e^2x + 1) would cancel.
const TANH: &str = "
fn hyperbolic_tangent(x: f32) -> f32 {
    let z = x * x;
    var p = -5.7049887e-3f * z + 2.063909e-2f;
    p = p * z - 5.3739716e-2f;
    p = p * z + 1.3331442e-1f;
    p = p * z - 3.333328e-1f;
    let near = p * z * x + x;
    let t = min(abs(x), 20.0f);
    let far = with_sign(1.0f - 2.0f / (exponential_within(t + t) + 1.0f), x);
    let value = select(far, near, abs(x) < 0.625f);
    return select(select(value, x, is_nan(x)), x, (bitcast<u32>(x) << 1u) == 0u);
}
";

/// Two minimax polynomials by N. Juffa: x (1 + p(x^2)) near 0, and 1 - e^(p(|x|)) beyond 475/512.
const ERF: &str = "
fn error_function(x: f32) -> f32 {
    let t = min(abs(x), 4.0f);
    let s = t * t;
    var p = -5.967617e-4f * s + 4.9911942e-3f;
    p = p * s - 2.6768135e-2f;
    p = p * s + 1.1281993e-1f;
    p = p * s - 3.7612534e-1f;
    p = p * s + 1.2837917e-1f;
    let near = p * x + x;
    var r = -1.7285347e-5f * t + 3.8319713e-4f;
    let u = -3.8839644e-3f * t + 2.4254622e-2f;
    r = r * s + u;
    r = r * t - 1.0677788e-1f;
    r = r * t - 6.348467e-1f;
    r = r * t - 1.2871751e-1f;
    r = r * t - t;
    let far = with_sign(1.0f - exponential_within(r), x);
    let value = select(near, far, abs(x) > 0.9277344f);
    return select(select(value, x, is_nan(x)), x, (bitcast<u32>(x) << 1u) == 0u);
}
";

/// High and low word of a product.
const WIDE_PRODUCT: &str = "
fn wide_product(x: u32, y: u32) -> vec2<u32> {
    let low = (x & 0xffffu) * (y & 0xffffu);
    let first = (x >> 16u) * (y & 0xffffu) + (low >> 16u);
    let second = (x & 0xffffu) * (y >> 16u) + (first & 0xffffu);
    return vec2<u32>((x >> 16u) * (y >> 16u) + (first >> 16u) + (second >> 16u), x * y);
}
";

/// |x| less a multiple of pi/2, as the sum of two floats, and that multiple. Integers throughout: 24 bits of x times 96
/// of 2/pi (Payne and Hanek 1983), so that no argument is too large.
const QUADRANT: &str = "
const TWO_OVER_PI = array<u32, 7>(0x28be60dbu, 0x9391054au, 0x7f09d5f4u, 0x7d4d3770u, 0x36d8a566u, 0x4f10e410u, 0x7f9458eau);
struct Quadrant { high: f32, low: f32, number: u32 }
fn quadrant(magnitude: u32) -> Quadrant {
    if magnitude < 0x3f490fdbu {
        return Quadrant(bitcast<f32>(magnitude), 0.0f, 0u);
    }
    var words = TWO_OVER_PI;
    let mantissa = (magnitude << 8u) | 0x80000000u;
    let exponent = (magnitude >> 23u) - 126u;
    let first = min(exponent >> 5u, 4u);
    let shift = exponent & 31u;
    var part = array<u32, 3>();
    for (var i = 0u; i < 3u; i++) {
        let before = select(0u, words[max(first + i, 1u) - 1u], first + i > 0u);
        part[i] = (before << shift) | ((words[first + i] >> 1u) >> (31u - shift));
    }
    let lowest = wide_product(mantissa, part[2]);
    let middle = wide_product(mantissa, part[1]);
    let low = lowest.x + middle.y;
    let product = middle.x + select(0u, 1u, low < lowest.x) + mantissa * part[0];
    let upper = (product & 0x20000000u) != 0u;
    let number = (product >> 30u) + select(0u, 1u, upper);
    var high_word = product & 0x3fffffffu;
    var low_word = low;
    if upper {
        low_word = ~low + 1u;
        high_word = ~(high_word | 0xc0000000u) + select(0u, 1u, low_word == 0u);
    }
    var scale = 0u;
    if high_word == 0u {
        high_word = low_word;
        low_word = 0u;
        scale = 32u;
    }
    let zeros = min(countLeadingZeros(high_word), 31u);
    high_word = (high_word << zeros) | ((low_word >> 1u) >> (31u - zeros));
    low_word = low_word << zeros;
    scale += zeros;
    let pi_first = wide_product(high_word, 0xc90fdaa2u);
    let pi_second = wide_product(high_word, 0x2168c235u);
    let pi_third = wide_product(low_word, 0xc90fdaa2u);
    let carried = pi_second.x + pi_third.x;
    let less = pi_first.y + carried;
    var top = pi_first.x + select(0u, 1u, carried < pi_second.x) + select(0u, 1u, less < pi_first.y);
    var rest = less;
    if (top & 0x80000000u) == 0u {
        top = (top << 1u) | (rest >> 31u);
        rest = rest << 1u;
        scale += 1u;
    }
    let unit = bitcast<f32>((127u + 3u - scale) << 23u);
    let high = f32(top >> 8u) * 5.9604645e-8f * unit;
    let below = f32((top << 24u) | (rest >> 8u)) * 1.3877788e-17f * unit;
    return Quadrant(select(high, -high, upper), select(below, -below, upper), number);
}
";

/// Sine of the reduced argument, or its cosine, with the sign of its quadrant (Cephes sinf and cosf): within 1 ulp at any
/// argument.
const CIRCULAR: &str = "
fn circular(magnitude: u32, turn: u32) -> f32 {
    let q = quadrant(magnitude);
    let number = q.number + turn;
    let r = q.high;
    let z = r * r;
    let s = (-1.9515296e-4f * z + 8.332161e-3f) * z - 1.6666655e-1f;
    let sine_value = r + (s * z * r + q.low);
    let c = (2.4433157e-5f * z - 1.3887316e-3f) * z + 4.1666646e-2f;
    let half_square = 0.5f * z;
    let near = 1.0f - half_square;
    let cosine_value = near + (((1.0f - near) - half_square) + (c * z * z - r * q.low));
    let value = select(sine_value, cosine_value, (number & 1u) == 1u);
    return bitcast<f32>(bitcast<u32>(value) ^ ((number & 2u) << 30u));
}
";

const SINE: &str = "
fn sine(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    let magnitude = bits & 0x7fffffffu;
    let value = bitcast<u32>(circular(min(magnitude, 0x7f7fffffu), 0u)) ^ (bits & 0x80000000u);
    return bitcast<f32>(select(value, 0x7fc00000u, magnitude >= 0x7f800000u));
}
";

const COSINE: &str = "
fn cosine(x: f32) -> f32 {
    let magnitude = bitcast<u32>(x) & 0x7fffffffu;
    let value = bitcast<u32>(circular(min(magnitude, 0x7f7fffffu), 1u));
    return bitcast<f32>(select(value, 0x7fc00000u, magnitude >= 0x7f800000u));
}
";

/// Exact, bit by bit, as C's fmodf: the quotient may have more bits than a float.
const REMAINDER: &str = "
fn remainder_f32(x: f32, y: f32) -> f32 {
    let sign = bitcast<u32>(x) & 0x80000000u;
    let dividend = bitcast<u32>(x) & 0x7fffffffu;
    let divisor = bitcast<u32>(y) & 0x7fffffffu;
    if divisor == 0u || divisor > 0x7f800000u || dividend >= 0x7f800000u {
        return float_of(0x7fc00000u);
    }
    if dividend < divisor {
        return x;
    }
    let dividend_shift = max(countLeadingZeros(dividend), 8u) - 8u;
    let divisor_shift = max(countLeadingZeros(divisor), 8u) - 8u;
    var left = select(((dividend & 0x007fffffu) | 0x00800000u), dividend << (dividend_shift & 31u), dividend_shift > 0u);
    let step = select(((divisor & 0x007fffffu) | 0x00800000u), divisor << (divisor_shift & 31u), divisor_shift > 0u);
    var exponent = max(bitcast<i32>(dividend >> 23u), 1i) - bitcast<i32>(dividend_shift);
    let last = max(bitcast<i32>(divisor >> 23u), 1i) - bitcast<i32>(divisor_shift);
    while exponent > last && left != 0u {
        left = select(left, left - step, left >= step) << 1u;
        exponent -= 1i;
    }
    left = select(left, left - step, left >= step);
    if left == 0u {
        return bitcast<f32>(sign);
    }
    let shift = countLeadingZeros(left) - 8u;
    left = left << shift;
    exponent -= bitcast<i32>(shift);
    let normal = (left & 0x007fffffu) | (bitcast<u32>(exponent) << 23u);
    let subnormal = left >> (bitcast<u32>(1i - exponent) & 31u);
    return bitcast<f32>(sign | select(subnormal, normal, exponent > 0i));
}
";

/// Divisors on which machines differ are kept away from them.
const QUOTIENT_I32: &str = "
fn quotient_i32(x: i32, y: i32) -> i32 {
    let is_odd = y == 0i || y == -1i;
    return select(x / select(y, 1i, is_odd), select(0i, -x, y == -1i), is_odd);
}
";

const TO_SIGNED: &str = "
fn to_signed(x: f32) -> i32 {
    let within = i32(clamp(x, -2147483648.0f, 2147483520.0f));
    return select(select(within, signed_of(0x7fffffffu), x >= 2147483648.0f), 0i, is_nan(x));
}
";

const TO_UNSIGNED: &str = "
fn to_unsigned(x: f32) -> u32 {
    let within = u32(clamp(x, 0.0f, 4294967040.0f));
    return select(select(within, 0xffffffffu, x >= 4294967296.0f), 0u, is_nan(x));
}
";

/// Word `index mod 2` of the Threefry-2x32-20 block (`ops::threefry`).
const RANDOM_WORD: &str = "
fn four_rounds(words: vec2<u32>, by: vec4<u32>, first: u32, second: u32) -> vec2<u32> {
    var x = words;
    for (var i = 0u; i < 4u; i++) {
        x.x += x.y;
        x.y = ((x.y << by[i]) | (x.y >> (32u - by[i]))) ^ x.x;
    }
    return x + vec2<u32>(first, second);
}
fn random_word(index: u32, k0: u32, k1: u32, c1: u32) -> u32 {
    let k2 = 0x1bd11bdau ^ k0 ^ k1;
    let even = vec4<u32>(13u, 15u, 26u, 6u);
    let odd = vec4<u32>(17u, 29u, 16u, 24u);
    var x = vec2<u32>((index >> 1u) + k0, c1 + k1);
    x = four_rounds(x, even, k1, k2 + 1u);
    x = four_rounds(x, odd, k2, k0 + 2u);
    x = four_rounds(x, even, k0, k1 + 3u);
    x = four_rounds(x, odd, k1, k2 + 4u);
    x = four_rounds(x, even, k2, k0 + 5u);
    return select(x.x, x.y, (index & 1u) == 1u);
}
";
