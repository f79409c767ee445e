//! Whether a plugin's picture of the ABI fits the host's.
//!
//! Within a major version both sides only append, so that of two layouts the older must be a prefix of the newer, type
//! by type. abi_stable compares that, but in one direction: what is expected may lack what is found has more of. And
//! its usual entry keeps, for the whole process, every layout it has seen, and then compares a library with those of
//! others, where the types that did not grow no longer tell which side is the older: a plugin of ABI 1.0 would make
//! every later one look as if it had too many methods. Each library is therefore compared with the host alone.

use abi_stable::abi_stability::abi_checking::{
    AbiInstability, AbiInstabilityErrors, CheckingGlobals, check_layout_compatibility_with_globals,
};
use abi_stable::type_layout::{TLFieldOrFunction, TypeLayout};

/// Compares a library's layout of `theirs` with the host's. `newer` says whether the library's ABI is of a later minor
/// version than the host's. What is wrong comes back as the first difference, in a few words.
pub fn check(theirs: &'static TypeLayout, ours: &'static TypeLayout, newer: bool) -> Result<(), String> {
    let (older, later) = if newer { (ours, theirs) } else { (theirs, ours) };
    check_layout_compatibility_with_globals(older, later, &CheckingGlobals::new()).map_err(|errors| {
        tracing::debug!("{errors}");
        first(&errors)
    })
}

/// The innermost place of the first difference, and what differs there.
fn first(errors: &AbiInstabilityErrors) -> String {
    let described = errors.errors.iter().find_map(|error| Some((error, error.errs.first()?)));
    let Some((error, what)) = described else { return "a difference that has no description".into() };
    let what = difference(what);
    let field = error.stack_trace.iter().rev().find_map(|pair| match pair.found {
        TLFieldOrFunction::Field(field) => Some(format!("{} {}", field.name(), field.layout().full_type())),
        TLFieldOrFunction::Function(_) => None,
    });
    field.map_or(what.clone(), |field| format!("{field}: {what}"))
}

fn difference(error: &AbiInstability) -> String {
    use AbiInstability as Found;
    match error {
        Found::FieldCountMismatch(pair) => {
            format!("the older side has {} entries, the newer {}", pair.expected, pair.found)
        }
        Found::UnexpectedField(pair) => format!("{} instead of {}", pair.found.name(), pair.expected.name()),
        Found::Size(pair) => format!("{} bytes instead of {}", pair.found, pair.expected),
        Found::Name(pair) => format!("type {} instead of {}", pair.found, pair.expected),
        Found::Package(pair) => format!("package {} instead of {}", pair.found, pair.expected),
        Found::PackageVersion(pair) => format!("package version {} instead of {}", pair.found, pair.expected),
        // The name of the kind of difference; its fields run to pages.
        other => {
            let text = format!("{other:?}");
            text.split(['(', ' ']).next().unwrap_or_default().to_string()
        }
    }
}
