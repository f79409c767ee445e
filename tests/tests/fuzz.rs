//! The fuzzers' harness over pseudo-random bytes, so that every change runs it: some seconds here, hours in
//! `tests/fuzz`.

use data::Stream;
use host_tests::fuzz;
use host_tests::programs::random_graph;

/// Runs a harness on `count` byte strings; a panic names the one that caused it.
fn run(name: &str, count: u64, harness: fn(&[u8])) {
    for index in 0..count {
        let mut stream = Stream::new(0, name, index);
        let length = stream.below(400);
        let bytes: Vec<u8> = (0..length).map(|_| stream.next_u32() as u8).collect();
        let outcome = std::panic::catch_unwind(|| harness(&bytes));
        assert!(outcome.is_ok(), "{name}: input {index} is {bytes:?}");
    }
}

#[test]
fn any_emits_make_a_graph_or_errors() {
    run("emit", 4000, fuzz::emit);
}

#[test]
fn no_pass_changes_a_bit_of_a_chosen_graph() {
    run("passes", 300, fuzz::passes);
}

/// Text of real graphs, a few bytes of it changed: plain noise would not come past the first word.
#[test]
fn damaged_text_is_a_graph_or_an_error() {
    let marks = b"%0123456789-.,()[]{}@:= \n\\efinputsa";
    for seed in 0..3000 {
        let mut stream = Stream::new(seed, "damage", 0);
        let mut text = random_graph(seed % 50).to_string().into_bytes();
        for _ in 0..stream.below(4) {
            let at = stream.below(text.len() as u64) as usize;
            let mark = marks[stream.below(marks.len() as u64) as usize];
            match stream.below(3) {
                0 => text[at] = mark,
                1 => text.insert(at, mark),
                _ => drop(text.drain(at..(at + 1 + stream.below(20) as usize).min(text.len()))),
            }
        }
        let outcome = std::panic::catch_unwind(|| fuzz::parse(&text));
        assert!(outcome.is_ok(), "seed {seed}: {}", String::from_utf8_lossy(&text));
    }
}
