//! The table of keys in the documentation is the one that the program knows.

use std::path::Path;

const MARK: &str = "<!-- from here on: `infomax config reference`, held by a test of infomax-run -->\n";

#[test]
fn every_key_is_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let text = std::fs::read_to_string(&path).unwrap().replace("\r\n", "\n");
    let (_, written) = text.split_once(MARK).expect("the mark stands in front of the tables");
    let known = infomax_run::config::reference();
    let difference = written.trim().lines().zip(known.trim().lines()).find(|(a, b)| a != b);
    assert!(
        written.trim() == known.trim(),
        "docs/configuration.md differs from `infomax config reference`; write it again below the mark: {difference:?}"
    );
}
