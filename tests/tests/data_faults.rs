//! Text that cannot be trained on is refused before anything is written.

use host_tests::{Sandbox, says};

#[test]
fn text_that_is_not_there() {
    let sandbox = Sandbox::new();
    says(
        &sandbox.refused(&["--data=nowhere.txt"]),
        &["nowhere.txt", "no such file or folder", "check the path"],
    );
    sandbox.write("folder/picture.png", "no text");
    says(&sandbox.refused(&["--data=folder"]), &["folder", ".txt, .md or .jsonl"]);
}

#[test]
fn text_that_is_empty_or_short() {
    let sandbox = Sandbox::new();
    sandbox.write("empty.txt", "");
    says(&sandbox.refused(&["--data=empty.txt"]), &["empty.txt", "holds no text"]);
    sandbox.write("short.txt", "a few words");
    says(
        &sandbox.refused(&["--data=short.txt"]),
        &["short.txt", "9 tokens", "window of 48", "shorter window or more text"],
    );
    // Enough to train on, but the last tenth is shorter than a window.
    sandbox.write("tail.txt", "some words ".repeat(20));
    says(&sandbox.refused(&["--data=tail.txt"]), &["tail.txt", "validation split has 22 tokens", "needs 49"]);
}

#[test]
fn text_that_is_not_text() {
    let sandbox = Sandbox::new();
    let mut bytes = "line of text\n".repeat(100).into_bytes();
    bytes[700] = 0xff;
    sandbox.write("latin.txt", &bytes);
    let sentence = sandbox.refused(&["--data=latin.txt", "--set=data.tokenizer=char"]);
    says(&sentence, &["latin.txt", "byte 700 is not valid UTF-8", "byte tokenizer"]);
    sandbox.train("run", &["--data=latin.txt", "--steps=1"]);
    sandbox.write("lines.jsonl", "{\"text\": \"good\"}\nbad\n");
    says(&sandbox.refused(&["--data=lines.jsonl"]), &["lines.jsonl, line 2", "not JSON", "\"text\""]);
}

#[test]
fn stories_that_leave_no_room_for_an_answer() {
    let sandbox = Sandbox::new();
    says(
        &sandbox.refused(&["--set=data.story.farthest=300"]),
        &["data.story.farthest", "300 bytes away", "train.window = 48", "raise the window"],
    );
    says(
        &sandbox.refused(&["--set=data.story.people=5"]),
        &["data.story.people", "with 5 people", "train.window is 48"],
    );
    sandbox.write("dials.toml", "[data.story]\nnearst = 64\n");
    says(
        &sandbox.refused(&["--config=dials.toml"]),
        &["data.story.nearst", "did you mean nearest?", "dials.toml line 2"],
    );
}
