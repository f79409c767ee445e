//! Random numbers: words of Threefry-2x32-20, and the uniforms and normals made of them.

use plugin_api::{DType, Op, Tensor};

use super::trace::{Given, Outputs};

/// How far each of eight rounds turns a word.
const ROTATIONS: [u32; 8] = [13, 15, 26, 6, 17, 29, 16, 24];

/// Blocks of counter[N, 2] under key[2] or key[N, 2]. They are computed twice, by the op and from primitives on words,
/// because the op has no index for counters from 2^31 on: the primitives stand in for it there.
pub fn threefry<'c>(given: &Given<'c>) -> Outputs<'c> {
    given.fixed("rounds", 20.0);
    let (cx, blocks) = (given.cx, given.words("counter").dim(0));
    let column = |x: Tensor<'c>, index| x.slice(x.rank().saturating_sub(1), index, 1).repeat(&[blocks, 1]);
    let [k0, k1] = [0, 1].map(|index| column(given.words("key"), index));
    let [c0, c1] = [0, 1].map(|index| column(given.words("counter"), index));
    let words = by_primitives([k0, k1], [c0, c1]);

    let pair = |x: Tensor<'c>| x.repeat(&[blocks, 2]);
    let place = cx.emit(Op::Iota, &[], &[1, DType::U32 as i64, blocks as i64, 2], &[]);
    let index = pair(with(Op::Shl, c0, 1)) + place;
    let random = cx.emit(Op::Rand, &[index, pair(k0), pair(k1), pair(c1)], &[], &[]);
    let has_index = pair(c0).less(cx.constant(f64::from(1u32 << 31), DType::U32, &[blocks, 2]));
    let output = has_index.select(random, words);

    // The upper 24 bits, which an f32 holds exactly.
    let uniform = with(Op::Shr, output, 8).cast(DType::F32) * 0.5f64.powi(24);
    vec![
        ("output".into(), output),
        ("output".into(), words),
        ("uniform".into(), uniform),
        ("normal".into(), normals(uniform)),
    ]
}

/// Two normals of the two uniforms in [0, 1) of each row (Box and Muller 1958).
fn normals(uniform: Tensor<'_>) -> Tensor<'_> {
    let [u1, u2] = [0, 1].map(|word| uniform.slice(1, word, 1));
    // Moved into (0, 1], where the logarithm is finite.
    let radius = ((u1 + 0.5f64.powi(24)).ln() * -2.0).sqrt();
    let angle = u2 * std::f64::consts::TAU;
    uniform.cx().emit(Op::Concat, &[radius * angle.cos(), radius * angle.sin()], &[1], &[])
}

/// The blocks [N, 2] of counters under keys, all [N, 1] (Salmon et al. 2011).
fn by_primitives<'c>([k0, k1]: [Tensor<'c>; 2], [c0, c1]: [Tensor<'c>; 2]) -> Tensor<'c> {
    let cx = k0.cx();
    let xor = |a: Tensor<'c>, b| cx.emit(Op::Xor, &[a, b], &[], &[]);
    let keys = [k0, k1, with(Op::Xor, xor(k0, k1), 0x1BD1_1BDA)];
    let (mut x0, mut x1) = (c0 + k0, c1 + k1);
    for (round, bits) in ROTATIONS.into_iter().cycle().take(20).enumerate() {
        x0 = x0 + x1;
        let turned = cx.emit(Op::Or, &[with(Op::Shl, x1, bits), with(Op::Shr, x1, 32 - bits)], &[], &[]);
        x1 = xor(turned, x0);
        if round % 4 == 3 {
            let turn = round / 4 + 1;
            x0 = x0 + keys[turn % 3];
            x1 = with(Op::Add, x1 + keys[(turn + 1) % 3], turn as u32);
        }
    }
    cx.emit(Op::Concat, &[x0, x1], &[1], &[])
}

/// An op of each word with one constant word.
fn with(op: Op, words: Tensor<'_>, word: u32) -> Tensor<'_> {
    let cx = words.cx();
    cx.emit(op, &[words, cx.constant(word.into(), DType::U32, &words.dims())], &[], &[])
}
