//! What a run wrote about itself, read from outside: nobody has to hold it, and it may be running.

use crate::run_dir::{LOCK, LOG, METRICS, is_run};
use crate::{Error, Result, files};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::Path;

/// A line of `metrics.jsonl` with every value under a dotted name, such as `embedding.std_mean`; the parts of the
/// objective are `parts.NAME` with their weights `parts.NAME.weight`. Fields of other versions are kept like any other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// The number of finished steps.
    pub step: u64,
    /// Numbers by name. A truth value is 1 or 0.
    pub values: BTreeMap<String, f64>,
    /// Words by name, such as `health`.
    pub words: BTreeMap<String, String>,
    /// When the line was made, in seconds since 1970 (UTC): the start of its part of the run, which `log.txt` has, and
    /// its `time.elapsed_s`. Without a log the seconds since the start.
    pub time: f64,
}

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// All steps were made.
    Finished,
    /// A condition that was to end it held.
    Stopped,
    /// Stopped on request; it can be continued.
    Interrupted,
    /// An error ended it.
    Failed,
    /// A process is working on it.
    Running,
    /// Neither ended nor running: its process was killed, or it was only begun.
    Unfinished,
}

impl RunState {
    /// What a message of the log says of the end of a run, with the reason.
    pub(crate) fn of_message(message: &str) -> Option<(Self, &str)> {
        if let Some(rest) = message.strip_prefix("stopped by an error") {
            return rest.split_once(": ").map(|(_, error)| (Self::Failed, error));
        }
        let ended = [
            (Self::Finished, "finished at step "),
            (Self::Stopped, "stopped at step "),
            (Self::Interrupted, "interrupted at step "),
        ];
        ended.into_iter().find(|(_, start)| message.starts_with(start)).map(|(state, _)| (state, message))
    }
}

impl std::fmt::Display for RunState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Finished => "finished",
            Self::Stopped => "stopped",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
            Self::Running => "running",
            Self::Unfinished => "unfinished",
        })
    }
}

/// What a run wrote about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// The logged steps.
    pub records: Vec<Record>,
    /// How the run stands.
    pub state: RunState,
    /// The error that ended it, or what else its log says of its end.
    pub ending: Option<String>,
    /// When it was begun, in seconds since 1970 (UTC).
    pub started: Option<f64>,
    /// Seconds of training over all of its parts: each up to its end, or to its last logged step where it has none.
    pub seconds: f64,
    /// Finished steps: those of the last logged step, or of the end of the run where its log says more.
    pub steps: u64,
    /// Steps of the whole run where the log says so: one with a budget does not.
    pub planned: Option<u64>,
    /// What could not be read. Show it.
    pub problems: Vec<String>,
}

impl History {
    /// Reads a run.
    ///
    /// # Errors
    /// [`Error::NotARun`]; [`Error::Io`] of a file that is there and cannot be read. A line that is none is no error:
    /// it is among the problems.
    pub fn read(run: &Path) -> Result<Self> {
        is_run(run)?;
        let log = Log::parse(&String::from_utf8_lossy(&optional(&run.join(LOG))?));
        let bytes = optional(&run.join(METRICS))?;
        let (mut records, mut problems) = (Vec::<Record>::new(), Vec::new());
        for (number, line) in bytes.split_inclusive(|&b| b == b'\n').enumerate() {
            // The last line of a run that is running, or was killed, may be half-written.
            let Some(line) = line.strip_suffix(b"\n") else { continue };
            match serde_json::from_slice(line).ok().and_then(|value| Record::of(&value)) {
                Some(mut record) => {
                    record.time += log.base(record.step);
                    records.push(record);
                }
                None => problems.push(format!(
                    "line {} of {} is not one of metrics and was left out",
                    number + 1,
                    run.join(METRICS).display()
                )),
            }
        }
        let state = match log.state {
            RunState::Unfinished if held(run) => RunState::Running,
            state => state,
        };
        let seconds = log.seconds(&records);
        let steps = records.last().map_or(0, |record| record.step).max(log.end.unwrap_or(0));
        let (ending, started, planned) = (log.ending, log.started, log.planned);
        Ok(Self { records, state, ending, started, seconds, steps, planned, problems })
    }

    /// The names of all values, those that describe the step first.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.records.iter().flat_map(|record| record.values.keys()).cloned().collect();
        names.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.cmp(b)));
        names.dedup();
        names
    }

    /// A value over the steps at which it was measured.
    pub fn curve(&self, name: &str) -> Vec<(u64, f64)> {
        let points = self.records.iter();
        points.filter_map(|record| Some((record.step, *record.values.get(name)?))).collect()
    }
}

/// Where a column stands: steps before losses before measurements before times.
pub(crate) fn place(name: &str) -> usize {
    const ORDER: [&str; 7] = ["step", "epoch", "total_steps", "lr", "total", "parts", "grad_norm"];
    let first = name.split('.').next().unwrap_or(name);
    match first {
        "time" => ORDER.len() + 1,
        _ => ORDER.iter().position(|known| *known == first).unwrap_or(ORDER.len()),
    }
}

impl Record {
    /// The values of a line; `None` for what has no step.
    pub(crate) fn of(line: &Value) -> Option<Self> {
        let mut record = Self { step: line.get("step")?.as_u64()?, ..Self::default() };
        record.collect("", line);
        record.time = record.values.get("time.elapsed_s").copied().unwrap_or(0.0);
        Some(record)
    }

    fn collect(&mut self, path: &str, value: &Value) {
        let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        match value {
            Value::Null => {}
            Value::Bool(flag) => self.values.extend([(path.to_owned(), f64::from(u8::from(*flag)))]),
            Value::Number(number) => {
                self.values.extend(number.as_f64().map(|number| (path.to_owned(), number)));
            }
            Value::String(text) => self.words.extend([(path.to_owned(), text.clone())]),
            Value::Object(fields) => fields.iter().for_each(|(key, value)| self.collect(&below(key), value)),
            Value::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    // A list of named things is a table by name.
                    match (item.get("name").and_then(Value::as_str), item.as_object()) {
                        (Some(name), Some(fields)) => {
                            for (key, value) in fields.iter().filter(|(key, _)| *key != "name") {
                                let key =
                                    if key == "value" { name.to_owned() } else { format!("{name}.{key}") };
                                self.collect(&below(&key), value);
                            }
                        }
                        _ => self.collect(&below(&i.to_string()), item),
                    }
                }
            }
        }
    }
}

/// What `log.txt` says of the course of a run.
struct Log {
    parts: Vec<Part>,
    started: Option<f64>,
    state: RunState,
    ending: Option<String>,
    /// Finished steps at the end of the last part.
    end: Option<u64>,
    /// Steps that the last part was to come to.
    planned: Option<u64>,
}

/// From a start or a resumption on.
struct Part {
    /// The step at which it began.
    from: u64,
    /// When it began.
    begin: f64,
    /// When it ended.
    end: Option<f64>,
}

impl Log {
    fn parse(text: &str) -> Self {
        let mut log = Self {
            parts: Vec::new(),
            started: None,
            state: RunState::Unfinished,
            ending: None,
            end: None,
            planned: None,
        };
        for line in text.lines() {
            let Some((time, message)) = line.split_once(' ') else { continue };
            let Ok(time) = time.parse::<Timestamp>() else { continue };
            let time = time.as_millisecond() as f64 / 1e3;
            log.started.get_or_insert(time);
            if let Some(rest) = message.strip_prefix("training from step ") {
                let mut words = rest.split(' ');
                let from = words.next().and_then(|step| step.parse().ok());
                log.parts.extend(from.map(|from| Part { from, begin: time, end: None }));
                log.planned = words.nth(1).and_then(|step| step.parse().ok());
                (log.state, log.ending, log.end) = (RunState::Unfinished, None, None);
            } else if let Some((state, why)) = RunState::of_message(message) {
                (log.state, log.ending) = (state, Some(why.to_owned()));
                log.end = step_of(message);
                // What is logged after the end, as by a second look at it, ends no part again.
                if let Some(part) = log.parts.last_mut() {
                    part.end.get_or_insert(time);
                }
            }
        }
        log
    }

    /// The part that a step belongs to: the last one that began before it, since one that goes back cuts off what
    /// came after.
    fn part(&self, step: u64) -> Option<usize> {
        self.parts.iter().rposition(|part| part.from < step)
    }

    /// When the part of a step began.
    fn base(&self, step: u64) -> f64 {
        self.part(step).and_then(|part| self.parts.get(part)).map_or(0.0, |part| part.begin)
    }

    fn seconds(&self, records: &[Record]) -> f64 {
        let mut longest: BTreeMap<Option<usize>, f64> = BTreeMap::new();
        for record in records {
            let elapsed = record.values.get("time.elapsed_s").copied().unwrap_or(0.0);
            let longest = longest.entry(self.part(record.step)).or_default();
            *longest = longest.max(elapsed);
        }
        for (i, part) in self.parts.iter().enumerate() {
            if let Some(end) = part.end {
                let longest = longest.entry(Some(i)).or_default();
                *longest = longest.max(end - part.begin);
            }
        }
        // A sum of nothing is a negative zero.
        longest.values().sum::<f64>() + 0.0
    }
}

/// The finished steps that a message of the end of a run names.
fn step_of(message: &str) -> Option<u64> {
    let starts =
        ["stopped by an error after step ", "finished at step ", "stopped at step ", "interrupted at step "];
    let rest = starts.into_iter().find_map(|start| message.strip_prefix(start))?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..digits)?.parse().ok()
}

/// Whether a process holds the run.
fn held(run: &Path) -> bool {
    let Ok(lock) = File::open(run.join(LOCK)) else { return false };
    // Shared and for a moment: others that look are not in the way of each other.
    matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// The content of a file, nothing if there is none.
fn optional(path: &Path) -> Result<Vec<u8>> {
    match files::read(path) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_a_line_has_a_dotted_name() {
        let line = serde_json::json!({
            "step": 3, "total": 0.5, "health": "healthy", "embedding": { "std_mean": 1.5, "ok": true },
            "parts": [{ "name": "a, b", "value": -2.0, "weight": 25.0 }], "spectrum": [4.0, 1.0], "none": null,
            "time": { "elapsed_s": 2.0 },
        });
        let record = Record::of(&line).unwrap();
        let expected = [
            ("embedding.ok", 1.0),
            ("embedding.std_mean", 1.5),
            ("parts.a, b", -2.0),
            ("parts.a, b.weight", 25.0),
            ("spectrum.0", 4.0),
            ("spectrum.1", 1.0),
            ("step", 3.0),
            ("time.elapsed_s", 2.0),
            ("total", 0.5),
        ];
        assert_eq!(record.values, expected.map(|(name, value)| (name.to_owned(), value)).into());
        assert_eq!(record.words, [("health".to_owned(), "healthy".to_owned())].into());
        assert_eq!((record.step, record.time), (3, 2.0));
        assert_eq!(Record::of(&serde_json::json!({ "total": 1.0 })), None);
    }

    #[test]
    fn parts_of_a_run_have_their_own_clocks() {
        let log = Log::parse(
            "2026-01-01T00:00:00.000Z training from step 0 to 9\n\
             2026-01-01T00:00:10.000Z interrupted at step 5\n\
             no line\n\
             2026-01-01T01:00:00.000Z training from step 5 to 9\n\
             2026-01-01T01:00:30.000Z stopped by an error after step 7: disk: at step 3\n",
        );
        let start = log.started.unwrap();
        assert_eq!((log.base(5) - start, log.base(6) - start), (0.0, 3600.0));
        assert_eq!((log.state, log.ending.as_deref()), (RunState::Failed, Some("disk: at step 3")));
        assert_eq!((log.end, log.planned), (Some(7), Some(9)));
        let record = |step, elapsed: f64| Record {
            step,
            values: [("time.elapsed_s".to_owned(), elapsed)].into(),
            ..Record::default()
        };
        assert_eq!(log.seconds(&[record(4, 8.0), record(5, 10.0), record(7, 25.0)]), 40.0);
        // Of one that failed before its first logged step, and of a version before.
        let failed = Log::parse(
            "2026-01-01T00:00:00Z training from step 0 to 20\n2026-01-01T00:00:03Z stopped by an error: no step 5",
        );
        assert_eq!((failed.seconds(&[]), failed.planned, failed.end), (3.0, Some(20), None));
        assert_eq!(failed.ending.as_deref(), Some("no step 5"));
        let budget = Log::parse("2026-01-01T00:00:00Z training from step 0 until 5m are over (0.0 s are)");
        assert_eq!((budget.planned, budget.end), (None, None));
        let again = Log::parse(
            "2026-01-01T00:00:00Z finished at step 9\n2026-01-01T00:00:00Z training from step 9 to 20",
        );
        assert_eq!(again.state, RunState::Unfinished);
        let stopped = Log::parse("2026-01-01T00:00:00Z stopped at step 7: rank < 0.1 * d");
        assert_eq!(stopped.state, RunState::Stopped);
    }
}
