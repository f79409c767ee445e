//! A topological order of the clusters, kept through every merge, so that a search for a detour stays between the two
//! clusters that are to merge instead of walking the whole graph.
//!
//! The order is the one of Pearce and Kelly ("A dynamic topological sort algorithm for directed acyclic graphs", 2006),
//! with a merge in place of a new edge: only what lies between the two and hangs on either of them moves, and it moves
//! within the places that those clusters held before. The answers do not depend on which order is kept.

use std::collections::BTreeSet;

pub struct Order {
    /// Place of each cluster; what a path visits grows along it.
    places: Vec<usize>,
    /// Units that wait for each cluster, and those it waits for. A unit is a cluster as it was at the start.
    after: Vec<Vec<usize>>,
    before: Vec<Vec<usize>>,
    /// The cluster that each unit is part of, or one that has become part of that.
    joined: Vec<usize>,
    /// Which search saw each cluster last, and how many there were.
    seen: Vec<u64>,
    searches: u64,
}

impl Order {
    /// `before` lists for each cluster those it waits for. They do not wait for each other in a circle.
    pub fn new(before: Vec<Vec<usize>>) -> Order {
        let count = before.len();
        let mut after = vec![Vec::new(); count];
        for (cluster, list) in before.iter().enumerate() {
            list.iter().for_each(|previous| after[*previous].push(cluster));
        }
        let places = sorted(&before, &after);
        Order { places, after, before, joined: (0..count).collect(), seen: vec![0; count], searches: 0 }
    }

    /// Whether the two could be one cluster: no path leads from one to the other through a third.
    pub fn could_join(&mut self, first: usize, second: usize) -> bool {
        let is_first = self.places[first] < self.places[second];
        let (from, to) = if is_first { (first, second) } else { (second, first) };
        self.behind(from, to).is_some()
    }

    /// Makes one cluster, `first`, of both, unless some path leads from one to the other through a third: then
    /// nothing changes and the answer is false.
    pub fn join(&mut self, first: usize, second: usize) -> bool {
        let (from, to) =
            if self.places[first] < self.places[second] { (first, second) } else { (second, first) };
        let Some(behind) = self.behind(from, to) else { return false };
        let ahead = self.ahead(from, to);
        let clusters: Vec<usize> = ahead.into_iter().chain([first]).chain(behind).collect();
        let mut places: Vec<usize> = clusters.iter().map(|cluster| self.places[*cluster]).collect();
        places.push(self.places[second]);
        places.sort_unstable();
        clusters.iter().zip(places).for_each(|(cluster, place)| self.places[*cluster] = place);
        self.joined[second] = first;
        for lists in [&mut self.after, &mut self.before] {
            let moved = std::mem::take(&mut lists[second]);
            lists[first].extend(moved);
        }
        self.tidy(first);
        true
    }

    /// What waits for `from` and stands before `to`, in order; None if `to` waits for some of that.
    fn behind(&mut self, from: usize, to: usize) -> Option<Vec<usize>> {
        self.searches += 1;
        let mut found = Vec::new();
        let mut next = from;
        for step in 0.. {
            for index in 0..self.after[next].len() {
                let cluster = self.cluster(self.after[next][index]);
                if cluster == to && next != from {
                    return None;
                }
                if self.places[cluster] < self.places[to] && self.is_new(cluster, from) {
                    found.push(cluster);
                }
            }
            match found.get(step) {
                Some(cluster) => next = *cluster,
                None => break,
            }
        }
        found.sort_unstable_by_key(|cluster| self.places[*cluster]);
        Some(found)
    }

    /// What `to` waits for and stands behind `from`, in order.
    fn ahead(&mut self, from: usize, to: usize) -> Vec<usize> {
        self.searches += 1;
        let mut found = Vec::new();
        let mut next = to;
        for step in 0.. {
            for index in 0..self.before[next].len() {
                let cluster = self.cluster(self.before[next][index]);
                if self.places[cluster] > self.places[from] && self.is_new(cluster, to) {
                    found.push(cluster);
                }
            }
            match found.get(step) {
                Some(cluster) => next = *cluster,
                None => break,
            }
        }
        found.sort_unstable_by_key(|cluster| self.places[*cluster]);
        found
    }

    /// Whether this search sees the cluster for the first time, and it is not where the search began.
    fn is_new(&mut self, cluster: usize, start: usize) -> bool {
        cluster != start && std::mem::replace(&mut self.seen[cluster], self.searches) != self.searches
    }

    /// The cluster that a unit is part of now. Shortens the way for the next to ask.
    fn cluster(&mut self, mut unit: usize) -> usize {
        while self.joined[unit] != unit {
            self.joined[unit] = self.joined[self.joined[unit]];
            unit = self.joined[unit];
        }
        unit
    }

    /// Drops neighbours of a cluster that are itself or named twice.
    fn tidy(&mut self, cluster: usize) {
        for forward in [true, false] {
            let list = if forward { &mut self.after } else { &mut self.before };
            let mut list = std::mem::take(&mut list[cluster]);
            list.iter_mut().for_each(|unit| *unit = self.cluster(*unit));
            list.sort_unstable();
            list.dedup();
            list.retain(|other| *other != cluster);
            if forward { self.after[cluster] = list } else { self.before[cluster] = list }
        }
    }
}

/// A first order: Kahn's algorithm, ties by graph order.
fn sorted(before: &[Vec<usize>], after: &[Vec<usize>]) -> Vec<usize> {
    let mut open: Vec<usize> = before.iter().map(Vec::len).collect();
    let mut ready: BTreeSet<usize> = (0..open.len()).filter(|cluster| open[*cluster] == 0).collect();
    let mut places = vec![0; open.len()];
    let mut next_place = 0..;
    while let (Some(cluster), Some(place)) = (ready.pop_first(), next_place.next()) {
        places[cluster] = place;
        for next in &after[cluster] {
            open[*next] -= 1;
            if open[*next] == 0 {
                ready.insert(*next);
            }
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 0 -> 1 -> 3 and 0 -> 2 -> 3.
    fn diamond() -> Order {
        Order::new(vec![vec![], vec![0], vec![0], vec![1, 2]])
    }

    #[test]
    fn a_path_through_a_third_cluster_forbids_a_merge() {
        assert!(!diamond().join(0, 3));
        assert!(diamond().join(1, 2));
        let mut order = diamond();
        assert!(order.join(0, 1));
        assert!(!order.join(3, 0), "0 with 1 still leads to 3 through 2");
        assert!(order.join(2, 0) && order.join(0, 3));
    }

    /// Against a search of the whole graph, on graphs and merges drawn at random.
    #[test]
    fn every_answer_is_that_of_a_full_search() {
        let mut seed = 1_u64;
        let mut draw = |below: usize| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize % below
        };
        for _ in 0..50 {
            let count = 30;
            let before: Vec<Vec<usize>> = (0..count)
                .map(|to| {
                    let mut list: Vec<usize> = (0..draw(3).min(to)).map(|_| draw(to)).collect();
                    list.sort_unstable();
                    list.dedup();
                    list
                })
                .collect();
            let mut order = Order::new(before.clone());
            let mut part_of: Vec<usize> = (0..count).collect();
            for _ in 0..200 {
                let (a, b) = (part_of[draw(count)], part_of[draw(count)]);
                if a == b {
                    continue;
                }
                let expected = !(detours(&before, &part_of, a, b) || detours(&before, &part_of, b, a));
                assert_eq!(order.join(a, b), expected);
                if expected {
                    part_of.iter_mut().filter(|part| **part == b).for_each(|part| *part = a);
                }
            }
        }
    }

    fn detours(before: &[Vec<usize>], part_of: &[usize], from: usize, to: usize) -> bool {
        let after = |cluster: usize| {
            let waits = |unit: &usize| before[*unit].iter().any(|previous| part_of[*previous] == cluster);
            let units = (0..before.len()).filter(waits).map(|unit| part_of[unit]);
            units.filter(|next| *next != cluster).collect::<BTreeSet<usize>>()
        };
        let mut seen = BTreeSet::new();
        let mut pending: Vec<usize> = after(from).into_iter().filter(|next| *next != to).collect();
        while let Some(cluster) = pending.pop() {
            if cluster == to {
                return true;
            }
            if seen.insert(cluster) {
                pending.extend(after(cluster));
            }
        }
        false
    }
}
