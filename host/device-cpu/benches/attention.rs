//! Speed of the attention kernels, forward and backward: heads in place in [B, T, H, D], causal, and with a window.
//!
//! `cargo bench -p device-cpu --bench attention [-- PART OF A NAME]`. GFLOP/s count the pairs of a query and a key that the mask
//! shows, as `host profile` does.

mod support;

use device_cpu::Cpu;
use plan::*;

use support::*;

fn main() {
    for threads in [1, 2] {
        println!("{}", Cpu::new(threads).describe());
        // Of `tiny` and `craft-1m`, then longer ones: batch, heads, tokens, width, window.
        for case in [
            [8, 4, 64, 16, 0],
            [1, 8, 256, 16, 0],
            [64, 8, 256, 16, 0],
            [1, 8, 1024, 64, 0],
            [1, 8, 2048, 64, 256],
        ] {
            forward(threads, case);
            backward(threads, case);
        }
    }
}

fn shape([batch, heads, tokens, width, window]: [usize; 5]) -> AttentionShape {
    AttentionShape {
        batch,
        heads,
        groups: heads,
        queries: tokens,
        keys: tokens,
        width,
        value_width: width,
        scale: (width as f32).sqrt().recip(),
        causal: true,
        window,
        prefix: 0,
        q_offset: None,
        kv_len: None,
        segments: None,
    }
}

/// `[B, H, T, D]` of what lies as `[B, T, H, D]`.
fn in_place(slot: Slot, [_, heads, tokens, width, _]: [usize; 5]) -> Heads {
    Heads { slot, batch: tokens * heads * width, head: width, token: heads * width, element: 1 }
}

fn name(what: &str, [batch, heads, tokens, width, window]: [usize; 5]) -> String {
    let window = if window > 0 { format!(", window {window}") } else { String::new() };
    format!("{what} {batch}x{heads} of {tokens}x{width}{window}")
}

fn forward(threads: usize, case: [usize; 5]) {
    let [batch, heads, tokens, width, _] = case;
    let (all, rows) = (batch * heads * tokens * width, batch * heads * tokens);
    measured(&name("attention", case), threads, (case, 2), &[all, all, all, all, rows], |slots| {
        let [q, k, v, out] = [0, 1, 2, 3].map(|index| in_place(slots[index], case));
        LaunchOp::Attention(Box::new(Attention {
            shape: shape(case),
            q,
            k,
            v,
            out: Some(out),
            lse: Some(slots[4]),
        }))
    });
}

fn backward(threads: usize, case: [usize; 5]) {
    let [batch, heads, tokens, width, _] = case;
    let (all, rows) = (batch * heads * tokens * width, batch * heads * tokens);
    let lengths = [all, all, all, all, all, all, all, all, rows];
    measured(&name("attention'", case), threads, (case, 5), &lengths, |slots| {
        let [q, k, v, out, ct_out, ct_q, ct_k, ct_v] =
            [0, 1, 2, 3, 4, 5, 6, 7].map(|index| in_place(slots[index], case));
        let (ct_q, ct_k, ct_v) = (Some(ct_q), Some(ct_k), Some(ct_v));
        let (shape, lse) = (shape(case), slots[8]);
        LaunchOp::AttentionGrad(Box::new(AttentionGrad {
            shape,
            q,
            k,
            v,
            out,
            lse,
            ct_out,
            ct_q,
            ct_k,
            ct_v,
        }))
    });
}

/// Prints the time of a launch with so many products of a query's or a weight's vector for each pair that the mask shows.
fn measured(
    name: &str,
    threads: usize,
    (case, products): ([usize; 5], usize),
    lengths: &[usize],
    launch: impl Fn(&[Slot]) -> LaunchOp,
) {
    if !wanted(name) {
        return;
    }
    let [batch, heads, tokens, width, window] = case;
    let seen = |query: usize| if window > 0 { window.min(query + 1) } else { query + 1 };
    let pairs = batch * heads * (0..tokens).map(seen).sum::<usize>();
    let seconds = time(threads, vec![], lengths, launch);
    let gflops = 1e-9 * (pairs * (2 * width * products + 1)) as f64 / seconds;
    println!("  {name:<44} {:9.3} ms {gflops:8.1} GFLOP/s", seconds * 1e3);
}
