//! What the benches came to: a line while they run, a page of Markdown, JSON.

use serde_json::{Value, json};

use super::measure::{Machine, Measured, PeerShown};
use super::side::Shown;

/// Median and quartiles.
struct Spread {
    low: f64,
    median: f64,
    high: f64,
}

fn spread(values: &[f64]) -> Option<Spread> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
    (!sorted.is_empty()).then(|| Spread { low: at(0.25), median: at(0.5), high: at(0.75) })
}

fn median(shown: &Shown) -> f64 {
    spread(&shown.seconds).map_or(f64::NAN, |spread| spread.median)
}

impl Measured {
    /// The fastest peer that does the same thing.
    fn strongest(&self) -> Option<&PeerShown> {
        let plain = self.peers.iter().filter(|peer| peer.plain && !peer.shown.seconds.is_empty());
        plain.min_by(|a, b| median(&a.shown).total_cmp(&median(&b.shown)))
    }

    /// Ours over the strongest peer.
    fn ratio(&self) -> Option<f64> {
        self.strongest().map(|peer| median(&self.ours) / median(&peer.shown))
    }

    /// PyTorch as it is installed, with which memory is compared.
    fn stock(&self) -> Option<&PeerShown> {
        self.peers.iter().find(|peer| peer.name == "stock")
    }

    /// The largest relative difference of a loss between ours and a peer's of the same question.
    fn difference(&self) -> Option<f64> {
        let of = |peer: &PeerShown| {
            let pairs = self.ours.losses.iter().zip(&peer.shown.losses);
            pairs.map(|(a, b)| (a - b).abs() / a.abs()).filter(|x| !x.is_nan()).reduce(f64::max)
        };
        self.peers.iter().filter(|peer| peer.agrees).filter_map(of).reduce(f64::max)
    }

    /// Share of the plan's bound that is reached.
    fn reached(&self) -> Option<f64> {
        self.ours.bound_seconds.map(|bound| bound / median(&self.ours))
    }
}

/// For someone who waits.
pub fn line(measured: &Measured) -> String {
    let peer = measured.strongest().map_or("no peer".into(), |peer| {
        format!(
            "{} {}, ours / peer {:.2}",
            peer.name,
            time(median(&peer.shown)),
            measured.ratio().unwrap_or(f64::NAN)
        )
    });
    format!("  ours {}, {peer}", time(median(&measured.ours)))
}

/// A page that docs can include: what counts, then every side.
pub fn markdown(results: &[Measured], machine: &Machine) -> String {
    let torch =
        machine.python.as_ref().map_or("no peers".to_string(), |python| format!("PyTorch {}", python.torch));
    let peaks =
        results.iter().filter_map(|measured| measured.ours.peaks).reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)));
    let peaks = peaks.map_or(String::new(), |(flops, bytes)| {
        format!(", at best {:.0} GFLOP/s and {:.0} GB/s", flops / 1e9, bytes / 1e9)
    });
    let load = machine.load.map_or(String::new(), |load| format!(" Load average before the first: {load}."));
    let mut text = format!(
        "{}, threads: {}{peaks}; {torch}, f32. Medians of {} rounds by turns{}, quartiles in brackets.{load}\n\n\
         | bench | ours | strongest peer | ours / peer | bar | loss differs by | memory: ours, stock | bound | reached |\n\
         |---|---|---|---|---|---|---|---|---|\n",
        processor(),
        machine.threads,
        machine.rounds,
        if machine.quick { " (fewer of the slow ones), peers not compiled (`--quick`)" } else { "" },
    );
    let maybe = |text: Option<String>| text.unwrap_or_default();
    for measured in results {
        let strongest = measured.strongest();
        let cells = [
            format!("{}: {}", measured.bench.name, measured.bench.what),
            seconds(&measured.ours),
            maybe(strongest.map(|peer| format!("{} {}", peer.name, seconds(&peer.shown)))),
            maybe(measured.ratio().map(|ratio| format!("**{ratio:.2}**"))),
            format!("{} ({})", measured.bench.bar, measured.bench.why),
            maybe(measured.difference().map(|difference| format!("{difference:.0e}"))),
            maybe(memory(&measured.ours).map(|own| {
                let stock = measured.stock().and_then(|peer| memory(&peer.shown));
                stock.map_or(own.clone(), |stock| format!("{own}, {stock}"))
            })),
            maybe(measured.ours.bound_seconds.map(time)),
            maybe(measured.reached().map(|share| format!("{:.0} %", 100.0 * share))),
        ];
        text += &format!("| {} |\n", cells.join(" | "));
    }
    text += "\nEvery peer, beside ours:\n\n| bench | peer | median | ours / peer | memory |\n|---|---|---|---|---|\n";
    for measured in results {
        for peer in &measured.peers {
            let cells = [
                measured.bench.name.to_string(),
                peer.name.clone(),
                seconds(&peer.shown),
                format!("{:.2}", median(&measured.ours) / median(&peer.shown)),
                maybe(memory(&peer.shown)),
            ];
            text += &format!("| {} |\n", cells.join(" | "));
        }
    }
    for measured in results {
        for absent in &measured.absent {
            text += &format!("\n{} did not run as {absent}\n", measured.bench.name);
        }
    }
    text
}

pub fn json(results: &[Measured], machine: &Machine) -> Value {
    let side = |shown: &Shown| {
        json!({
            "seconds": shown.seconds,
            "median": median(shown),
            "losses": shown.losses,
            "peak_bytes": shown.peak_bytes,
            "import_bytes": shown.import_bytes,
        })
    };
    let bench = |measured: &Measured| {
        let peers: Vec<Value> = measured
            .peers
            .iter()
            .map(|peer| json!({ "name": peer.name, "plain": peer.plain, "shown": side(&peer.shown) }))
            .collect();
        json!({
            "name": measured.bench.name,
            "what": measured.bench.what,
            "bar": measured.bench.bar,
            "why": measured.bench.why,
            "ours": side(&measured.ours),
            "peers": peers,
            "absent": measured.absent,
            "strongest": measured.strongest().map(|peer| &peer.name),
            "ours_over_strongest": measured.ratio(),
            "loss_difference": measured.difference(),
            "bound_seconds": measured.ours.bound_seconds,
            "reached": measured.reached(),
        })
    };
    json!({
        "processor": processor(),
        "torch": machine.python.as_ref().map(|python| &python.torch),
        "rounds": machine.rounds,
        "quick": machine.quick,
        "threads": machine.threads,
        "load": machine.load,
        "benches": results.iter().map(bench).collect::<Vec<_>>(),
    })
}

/// What a side took beyond its libraries.
fn memory(shown: &Shown) -> Option<String> {
    let bytes = shown.peak_bytes.saturating_sub(shown.import_bytes);
    (shown.peak_bytes > 0).then(|| format!("{:.0} MB", bytes as f64 / 1e6))
}

/// `12.3 ms (12.1-13.0)`
fn seconds(shown: &Shown) -> String {
    let Some(Spread { low, median, high }) = spread(&shown.seconds) else { return "-".into() };
    let (unit, factor) = unit(median);
    let number = |seconds: f64| short(seconds * factor);
    format!("{} {unit} ({}-{})", number(median), number(low), number(high))
}

fn time(seconds: f64) -> String {
    let (unit, factor) = unit(seconds);
    format!("{} {unit}", short(seconds * factor))
}

fn unit(seconds: f64) -> (&'static str, f64) {
    if seconds >= 1.0 { ("s", 1.0) } else { ("ms", 1e3) }
}

/// Three digits or so.
fn short(number: f64) -> String {
    match number {
        large if large >= 100.0 => format!("{large:.0}"),
        middle if middle >= 10.0 => format!("{middle:.1}"),
        small => format!("{small:.2}"),
    }
}

/// Its name, and the family that tells Zen 4 from Zen 5.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |key: &str| {
        let line = info.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_string())
    };
    let name = value("model name").unwrap_or_else(|| std::env::consts::ARCH.into());
    value("cpu family").map_or(name.clone(), |family| format!("{name} (family {family})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::table::BENCHES;

    fn shown(seconds: &[f64], losses: &[f64]) -> Shown {
        Shown { seconds: seconds.to_vec(), losses: losses.to_vec(), ..Shown::default() }
    }

    fn peer(name: &str, plain: bool, shown: Shown) -> PeerShown {
        PeerShown { name: name.into(), plain, agrees: plain, shown }
    }

    #[test]
    fn the_fastest_peer_that_does_the_same_is_the_one_to_beat() {
        let measured = Measured {
            bench: &BENCHES[0],
            ours: Shown { bound_seconds: Some(1.0), ..shown(&[4.0, 2.0, 9.0], &[2.0, 1.0]) },
            peers: vec![
                peer("stock", true, shown(&[5.0, 5.0, 5.0], &[2.0, 1.0])),
                peer("avx512", true, shown(&[2.0, 8.0, 1.0], &[2.0, 1.1])),
                peer("avx512, bf16", false, shown(&[0.5], &[7.0, 7.0])),
            ],
            absent: vec!["avx512, compiled: no compiler".into()],
        };
        assert_eq!(measured.strongest().map(|peer| peer.name.as_str()), Some("avx512"));
        assert_eq!(measured.ratio(), Some(2.0));
        assert_eq!(measured.reached(), Some(0.25));
        assert!((measured.difference().unwrap() - 0.1).abs() < 1e-9);
    }

    #[test]
    fn a_side_without_losses_or_peers_says_nothing_of_them() {
        let ours = shown(&[1.0], &[f64::NAN]);
        let peers = vec![peer("stock", true, shown(&[1.0], &[f64::NAN]))];
        let measured = Measured { bench: &BENCHES[0], ours, peers, absent: vec![] };
        assert_eq!(measured.difference(), None);
        let alone = Measured { peers: vec![], ours: shown(&[], &[]), ..measured };
        assert_eq!((alone.ratio(), seconds(&alone.ours).as_str()), (None, "-"));
    }

    #[test]
    fn names_are_unique_and_every_peer_is_there() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for (index, bench) in BENCHES.iter().enumerate() {
            assert!(!BENCHES[..index].iter().any(|other| other.name == bench.name), "{}", bench.name);
            for peer in bench.peers {
                assert!(root.join("bench/peers").join(peer.file).is_file(), "{}", peer.file);
            }
        }
    }
}
