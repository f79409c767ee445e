//! What is measured, against whom, and what would be good enough. A new bench is a row here, a job in
//! `tests/src/bench` and a peer in `bench/peers`.

/// One bench.
pub struct Bench {
    pub name: &'static str,
    pub what: &'static str,
    pub ours: Ours,
    pub peers: &'static [Peer],
    /// Steps of one question: short ones are asked for together.
    pub steps: usize,
    /// Ours over the strongest peer must not be above this.
    pub bar: f64,
    /// Why that much.
    pub why: &'static str,
    /// Left out where time is short.
    pub long: bool,
}

/// Our side.
pub enum Ours {
    /// A job of `tests/src/bin/bench.rs`, which stays alive and is asked by turns.
    Job(&'static str),
    /// The same, started anew each time, until its first step is done.
    FirstStep(&'static str),
    /// `host` with these arguments, until it ends.
    Command(&'static [&'static str]),
}

/// A program in `bench/peers`, run in each of the ways of [`WAYS`] that it takes.
pub struct Peer {
    pub file: &'static str,
    pub arguments: &'static [&'static str],
    /// What it does differently from the other peers of the bench; empty for the plain one.
    pub note: &'static str,
    /// Whether it starts from our weights and reads our batches.
    pub exported: bool,
    /// Whether it knows `--compile`.
    pub compiles: bool,
    /// Whether its losses must be ours.
    pub agrees: bool,
}

/// How a peer can be run.
pub struct Way {
    pub name: &'static str,
    /// MKL on its AVX-512 kernels, freed memory kept in huge pages.
    pub avx512: bool,
    pub compile: bool,
}

/// Beating only the first would mostly measure which kernels MKL chooses on this processor.
pub const WAYS: [Way; 3] = [
    Way { name: "stock", avx512: false, compile: false },
    Way { name: "avx512", avx512: true, compile: false },
    Way { name: "avx512, compiled", avx512: true, compile: true },
];

const fn peer(file: &'static str, arguments: &'static [&'static str]) -> Peer {
    Peer { file, arguments, note: "", exported: false, compiles: true, agrees: true }
}

const fn trained(file: &'static str, arguments: &'static [&'static str]) -> Peer {
    Peer { exported: true, ..peer(file, arguments) }
}

const CRAFT: &[&str] = &["--layers=6", "--heads=8", "--scale"];
const CRAFT_DROPOUT: &[&str] = &["--layers=6", "--heads=8", "--scale", "--dropout=0.2"];
const MIDDLE: &[&str] = &["--layers=8", "--heads=8"];
const TINY: &[&str] = &["--layers=2", "--heads=4"];

const AS_FAST: &str = "as fast as the strongest PyTorch";

const fn bench(name: &'static str, what: &'static str, peers: &'static [Peer]) -> Bench {
    Bench { name, what, ours: Ours::Job(name), peers, steps: 1, bar: 1.0, why: AS_FAST, long: false }
}

const fn attention(name: &'static str, what: &'static str, peers: &'static [Peer]) -> Bench {
    Bench { why: "as fast as SDPA", ..bench(name, what, peers) }
}

pub const BENCHES: [Bench; 15] = [
    bench(
        "craft-1m",
        "step of a character model: d128 L6 H8 T256 V65 B64",
        &[trained("transformer.py", CRAFT)],
    ),
    Bench {
        why: "as fast as the strongest PyTorch, whose dropout is cheap",
        ..bench(
            "craft-1m-dropout",
            "the same with dropout 0.2",
            &[Peer { agrees: false, ..trained("transformer.py", CRAFT_DROPOUT) }],
        )
    },
    bench("30m", "step of 29.5 M parameters: d512 L8 H8 T256 V8192 B4", &[trained("transformer.py", MIDDLE)]),
    Bench {
        steps: 10,
        why: "overhead counts as much as arithmetic",
        ..bench("tiny", "step of d64 L2 H4 T64 V96 B8", &[trained("transformer.py", TINY)])
    },
    bench("linear-ce", "head and cross-entropy, both ways: N2048 d512 V32000", &[peer("linear_ce.py", &[])]),
    attention("attention-1024", "causal, both ways: B1 H8 d64 T1024", &[peer("attention.py", &["1024"])]),
    attention("attention-2048", "the same, T2048", &[peer("attention.py", &["2048"])]),
    Bench {
        long: true,
        ..attention("attention-4096", "the same, T4096", &[peer("attention.py", &["4096"])])
    },
    Bench {
        long: true,
        ..attention("attention-8192", "the same, T8192", &[peer("attention.py", &["8192"])])
    },
    bench("delta-rule", "gated, both ways: B2 H4 T2048 d64", &[peer("delta_rule.py", &[])]),
    Bench {
        why: "as fast as f32; bf16 iterations are another number format",
        ..bench(
            "muon",
            "update of the 30M model's matrices",
            &[
                Peer { agrees: false, ..peer("muon.py", &[]) },
                Peer { agrees: false, compiles: false, note: "bf16", ..peer("muon.py", &["--bf16"]) },
            ],
        )
    },
    bench(
        "hope",
        "step with attention and memories: d256 L4 T256 V8192 B4, periods 16/64/256",
        &[
            Peer { compiles: false, ..trained("hope.py", &[]) },
            Peer { compiles: false, note: "factored writes", ..trained("hope.py", &["--factored"]) },
            Peer {
                compiles: false,
                agrees: false,
                note: "shared state",
                ..trained("hope.py", &["--shared"])
            },
        ],
    ),
    Bench {
        ours: Ours::Command(&["--help"]),
        bar: 0.05,
        why: "a command line answers at once",
        ..bench(
            "help",
            "the program's help",
            &[Peer { compiles: false, agrees: false, ..peer("help.py", &["--help"]) }],
        )
    },
    Bench {
        ours: Ours::FirstStep("tiny"),
        bar: 0.2,
        why: "nothing to import, nothing to compile",
        ..bench(
            "first-step",
            "from the start of the process to the first step of `tiny`",
            &[Peer { compiles: false, ..trained("transformer.py", TINY) }],
        )
    },
    Bench {
        bar: 0.2,
        why: "graphs are made in Rust",
        ..bench(
            "trace",
            "the pilot model, from configuration to plans",
            &[Peer { compiles: false, agrees: false, ..peer("trace.py", &[]) }],
        )
    },
];
