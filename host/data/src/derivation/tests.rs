//! The proof, on a grammar small enough to enumerate: charges are probabilities, to 1e-12.

use std::collections::BTreeMap;

use super::*;

/// A small grammar with all that the big one has: shared beginnings, uneven weights, a draw without
/// replacement, a determined fact, and a hazard that grows with the position in the text.
fn tiny(teller: &mut Teller) -> Result<(), Stop> {
    let mut left = vec!["ab", "ac", "b"];
    let first = teller.choose(Tag::Free, &evenly(&left), None)?;
    let fact = left.remove(first);
    loop {
        let hazard = (teller.position() as f64 / 7.0).min(1.0);
        let mut options = vec![Alternative { text: "?", weight: hazard }];
        if hazard < 1.0 {
            options.push(Alternative { text: "x", weight: (1.0 - hazard) * 0.7 });
            options.push(Alternative { text: "yz", weight: (1.0 - hazard) * 0.3 });
        }
        if teller.choose(Tag::Template, &options, None)? == 0 {
            break;
        }
    }
    let start = teller.position();
    let all = evenly(&["ab", "ac", "b"]);
    teller.choose(Tag::Answer, &[Alternative { text: fact, weight: 1.0 }], Some(&all))?;
    teller.answered(Question::Who, start, 1.0 / 3.0, start);
    let again = teller.choose(Tag::Free, &evenly(&left), None)?;
    left.remove(again);
    teller.fixed(left[0])
}

/// Every derivation of the tiny grammar with its probability, a product of weights and not of charges.
fn derivations() -> Vec<(Told, f64)> {
    let mut found = Vec::new();
    let mut picks = Vec::new();
    loop {
        let mut teller = Teller::scripted(picks.clone());
        assert_eq!(tiny(&mut teller), Ok(()));
        let Decider::Script { arities, probability, .. } = &teller.decider else {
            unreachable!("the teller was scripted")
        };
        let (arities, probability) = (arities.clone(), *probability);
        found.push((teller.finish(), probability));
        // The next derivation: an odometer whose wheels are the choices made.
        picks.resize(arities.len(), 0);
        while let Some(last) = picks.pop() {
            if last + 1 < arities[picks.len()] {
                picks.push(last + 1);
                break;
            }
        }
        if picks.is_empty() {
            return found;
        }
    }
}

#[test]
fn charges_of_every_prefix_are_its_probability_summed_over_all_derivations() {
    let all = derivations();
    let total: f64 = all.iter().map(|(_, probability)| probability).sum();
    assert!(all.len() > 100 && (total - 1.0).abs() < 1e-12, "{} derivations, {total}", all.len());
    let mut prefixes: BTreeMap<&[u8], f64> = BTreeMap::new();
    for (told, probability) in &all {
        for cut in 0..=told.bytes.len() {
            *prefixes.entry(&told.bytes[..cut]).or_default() += probability;
        }
    }
    for (told, _) in &all {
        let mut charged = 0.0;
        for (cut, charge) in told.charges.iter().enumerate() {
            charged += charge.floor_bits;
            let summed = prefixes[&told.bytes[..=cut]];
            assert!((summed - (-charged).exp2()).abs() < 1e-12, "{:?}", told.bytes);
        }
    }
}

#[test]
fn each_text_has_one_derivation_and_following_it_finds_its_charges() {
    let all = derivations();
    let texts: std::collections::BTreeSet<&[u8]> = all.iter().map(|(told, _)| &told.bytes[..]).collect();
    assert_eq!(texts.len(), all.len());
    for (told, _) in &all {
        let mut teller = Teller::following(&told.bytes);
        assert_eq!(tiny(&mut teller), Ok(()));
        assert_eq!(&teller.finish(), told);
    }
}

#[test]
fn determined_facts_cost_nothing_with_memory_and_their_prior_without() {
    for (told, _) in derivations() {
        let answer = told.answers[0];
        let of_answer = &told.charges[answer.start..answer.end];
        assert!(of_answer.iter().all(|charge| charge.floor_bits == 0.0 && charge.tag == Tag::Answer));
        let memoryless: f64 = of_answer.iter().map(|charge| charge.memoryless_bits).sum();
        assert!((memoryless - 3f64.log2()).abs() < 1e-12);
    }
}

#[test]
fn drawn_texts_have_the_frequencies_they_are_charged_for() {
    let draws = 40_000;
    let mut counts: BTreeMap<Vec<u8>, f64> = BTreeMap::new();
    for index in 0..draws {
        let mut teller = Teller::drawing(Stream::new(1, "tiny", index), 3);
        assert_eq!(tiny(&mut teller), Err(Stop));
        *counts.entry(teller.finish().bytes).or_default() += 1.0 / draws as f64;
    }
    let mut prefixes: BTreeMap<Vec<u8>, f64> = BTreeMap::new();
    for (told, probability) in derivations() {
        *prefixes.entry(told.bytes[..3].to_vec()).or_default() += probability;
    }
    for (text, probability) in prefixes {
        let seen = counts.get(&text).copied().unwrap_or(0.0);
        // Five standard deviations of a frequency.
        assert!((seen - probability).abs() < 5.0 * (probability / draws as f64).sqrt(), "{text:?}");
    }
}

#[test]
fn following_stops_at_the_first_byte_off_the_grammar() {
    let mut teller = Teller::following(b"abxq");
    assert_eq!(tiny(&mut teller), Err(Stop));
    assert_eq!(teller.finish().bytes, b"abx");
}

#[test]
fn an_answer_that_ends_with_the_text_is_inside() {
    let mut teller = Teller::following(b"b?b");
    assert_eq!(tiny(&mut teller), Err(Stop));
    assert_eq!(teller.finish().answers.len(), 1);
}

#[test]
#[should_panic(expected = "not prefix-free")]
fn a_choice_that_is_not_prefix_free_is_caught() {
    let mut teller = Teller::scripted(Vec::new());
    let _ = teller.choose(Tag::Free, &evenly(&["be", "bee"]), None);
}
