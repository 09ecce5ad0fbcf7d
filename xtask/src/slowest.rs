//! Which test programs take the time.

use std::fmt;

/// So many are shown.
const SHOWN: usize = 10;

/// Test programs with their seconds, from what `cargo test` prints.
#[derive(Debug, Default)]
pub(crate) struct Slowest {
    /// The program that runs now.
    running: Option<String>,
    found: Vec<(f64, String)>,
}

impl Slowest {
    /// Takes a line of the output: `Running tests/cli.rs (target/debug/deps/cli-0123)`, `Doc-tests infomax`, or
    /// `test result: ...; finished in 1.23s`.
    pub(crate) fn see(&mut self, line: &str) {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("Running ") {
            // The folder of the package is not said; the name of the program with the place of its source is enough to find it.
            let (source, program) = rest.split_once(" (").unwrap_or((rest, ""));
            let file = program.trim_end_matches(')').rsplit('/').next().unwrap_or_default();
            let name = file.rsplit_once('-').map_or(file, |(name, _)| name);
            self.running = Some(format!("{name} ({})", source.trim_start_matches("unittests ")));
        } else if let Some(name) = line.strip_prefix("Doc-tests ") {
            self.running = Some(format!("{name} (documentation)"));
        } else if line.starts_with("test result:")
            && let Some(seconds) =
                line.rsplit_once("finished in ").and_then(|(_, t)| t.trim_end_matches('s').parse().ok())
        {
            let name = self.running.take().unwrap_or_else(|| "a program without a name".to_owned());
            self.found.push((seconds, name));
        }
    }
}

impl fmt::Display for Slowest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.found.is_empty() {
            return Ok(());
        }
        let mut sorted: Vec<&(f64, String)> = self.found.iter().collect();
        sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
        let total: f64 = self.found.iter().map(|(seconds, _)| seconds).sum();
        writeln!(
            f,
            "{} test programs ran for {total:.0} s, not counting their build; the slowest:",
            sorted.len()
        )?;
        for (seconds, name) in sorted.iter().take(SHOWN) {
            writeln!(f, "{seconds:>8.1}  {name}")?;
        }
        writeln!(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_named_and_sorted_by_their_time() {
        let mut slowest = Slowest::default();
        for line in [
            "     Running unittests src/lib.rs (target/debug/deps/infomax_core-be96527c12f90be1)",
            "test result: ok. 9 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.21s",
            "     Running tests/gradients.rs (target/debug/deps/gradients-cb431b0fcff39450)",
            "test gradients_of_four_views has been running for over 60 seconds",
            "test result: FAILED. 4 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 121.16s",
            "   Doc-tests infomax",
            "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 3.00s",
        ] {
            slowest.see(line);
        }
        let text = slowest.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("3 test programs ran for 124 s"), "{text}");
        assert!(lines[1].contains("121.2  gradients (tests/gradients.rs)"), "{text}");
        assert!(
            lines[2].contains("infomax (documentation)") && lines[3].contains("infomax_core (src/lib.rs)"),
            "{text}"
        );
        assert_eq!(Slowest::default().to_string(), "");
    }
}
