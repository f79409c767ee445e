//! The story's vocabulary. Each list is prefix-free as it stands, so a word needs no delimiter to end it.

/// Initials of people. None begins another kind of sentence, so an initial tells that a person acts.
pub const INITIALS: [&str; 12] = ["B", "D", "G", "H", "K", "L", "M", "N", "P", "R", "V", "Z"];

/// A name is an initial and one of each list: 12 x 96 names, from "Bala" to "Zovo".
pub const NAME_TAIL: [&[&str]; 3] =
    [&["a", "e", "i", "o"], &["l", "m", "n", "r", "s", "v"], &["a", "en", "is", "o"]];

pub const OBJECTS: [&str; 10] = ["key", "cup", "lamp", "rope", "book", "bell", "coin", "drum", "ring", "map"];

pub const PLACES: [&str; 8] = ["mill", "barn", "well", "dock", "inn", "farm", "lake", "gate"];

pub const COUNTS: [&str; 4] = ["two ", "three ", "four ", "five "];
pub const ANIMALS: [&str; 4] = ["birds", "goats", "cats", "bees"];
pub const MANNERS: [&str; 4] = ["softly", "again", "at last", "for a while"];
pub const MOODS: [&str; 4] = ["sad", "glad", "slow", "merry"];

/// Sentences about the world: how they begin, and how they may go on.
pub const WORLD: [(&str, &[&str]); 5] = [
    ("The wind is ", &["cold", "warm", "loud", "strong"]),
    ("The sky is ", &["grey", "blue", "red", "dark"]),
    ("It rains ", &["all day", "at night", "once more"]),
    ("All is quiet ", &["in the hills", "by the sea", "at noon"]),
    ("A dog barks ", &["twice", "far away", "at the moon"]),
];

/// Every character a story can hold, in ascending order. A test holds the grammar to it, in both directions.
pub const ALPHABET: &str = "\n .?ABDGHIKLMNPRTVWZabcdefghiklmnopqrstuvwy";
