//! Which optimizer updates what, for a person and for the record.

use serde::Serialize;

use crate::config::Resolved;
use crate::trace::Banks;

/// What one optimizer updates.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    pub optimizer: String,
    /// Its learning rate as a factor of the schedule's.
    pub rate: f64,
    pub roles: Vec<RoleCount>,
}

/// Parameters of one role in a group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RoleCount {
    pub role: String,
    pub tensors: usize,
    pub elements: usize,
}

/// The run's optimizer and its fallback, each with what it updates. One that updates nothing is left out.
pub fn groups(resolved: &Resolved, banks: &Banks) -> Vec<Group> {
    let own = [(false, resolved.optimizer.component.name(), 1.0)];
    let fallback =
        resolved.fallback.iter().map(|fallback| (true, fallback.chosen.component.name(), fallback.rate));
    let group = |(by_fallback, optimizer, rate)| {
        let mut roles: Vec<RoleCount> = Vec::new();
        // Banks of one role follow each other.
        for bank in banks.banks.iter().filter(|bank| bank.place.by_fallback == by_fallback) {
            let (role, tensors) = (bank.role_name(), bank.parameters.len());
            match roles.last_mut().filter(|last| last.role == role) {
                Some(last) => {
                    last.tensors += tensors;
                    last.elements += bank.elements;
                }
                None => roles.push(RoleCount { role: role.into(), tensors, elements: bank.elements }),
            }
        }
        Group { optimizer, rate, roles }
    };
    own.into_iter().chain(fallback).map(group).filter(|group| !group.roles.is_empty()).collect()
}
