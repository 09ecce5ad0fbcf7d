//! The metrics of a run in other formats than `metrics.jsonl`, which stays the one that counts.

mod csv;
mod mlflow;
mod tensorboard;

use crate::history::Record;
use crate::{History, Result, RunState};
use std::path::Path;

/// A format that metrics are written in beside `metrics.jsonl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// `metrics.csv`: a row for each logged step, a column for each value.
    Csv,
    /// `tensorboard/events.out.tfevents.*`: scalars for TensorBoard.
    Tensorboard,
    /// `mlruns/`: the folder of a local MLflow tracking server, with the run as its only one.
    Mlflow,
}

impl LogFormat {
    /// Where a run keeps it, below its folder.
    pub fn file(self) -> &'static str {
        match self {
            Self::Csv => "metrics.csv",
            Self::Tensorboard => "tensorboard",
            Self::Mlflow => "mlruns",
        }
    }
}

/// Writes the metrics of a run in a format to a place: a file for [`LogFormat::Csv`], a folder otherwise. What this
/// function wrote there before is replaced; other files of a folder stay.
///
/// # Errors
/// [`crate::Error::NotARun`], [`crate::Error::NoMetrics`], [`crate::Error::Io`] with the path.
pub fn export(run: &Path, format: LogFormat, to: &Path) -> Result<History> {
    let history = History::read(run)?;
    if history.records.is_empty() {
        return Err(crate::Error::NoMetrics { run: run.to_owned() });
    }
    open(run, &history, format, to)?;
    Ok(history)
}

/// A format that a run goes on with.
trait Sink: std::fmt::Debug + Send {
    /// Takes a further line; false if all has to be written anew.
    fn append(&mut self, record: &Record) -> Result<bool>;

    /// The run ended, at a time in seconds since 1970.
    fn end(&mut self, _state: RunState, _time: f64) -> Result<()> {
        Ok(())
    }
}

/// Writes everything anew, and goes on from there.
fn open(run: &Path, history: &History, format: LogFormat, to: &Path) -> Result<Box<dyn Sink>> {
    Ok(match format {
        LogFormat::Csv => Box::new(csv::Table::write(history, to)?),
        LogFormat::Tensorboard => Box::new(tensorboard::Events::write(history, to)?),
        LogFormat::Mlflow => Box::new(mlflow::Folder::write(run, history, to)?),
    })
}

/// The formats of a run that is held. Each is written anew from `metrics.jsonl` at the first line of a process, so
/// that a resumed run repeats nothing and a killed one leaves nothing behind; then it grows line by line.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    formats: Vec<LogFormat>,
    sinks: Vec<(LogFormat, Option<Box<dyn Sink>>)>,
}

impl Logs {
    pub(crate) fn new(formats: &[LogFormat]) -> Self {
        let mut formats = formats.to_vec();
        formats.sort_by_key(|format| *format as u8);
        formats.dedup();
        let mut logs = Self { formats, sinks: Vec::new() };
        logs.restart();
        logs
    }

    /// `metrics.jsonl` is no longer a continuation of what was written.
    pub(crate) fn restart(&mut self) {
        self.sinks = self.formats.iter().map(|format| (*format, None)).collect();
    }

    /// Takes a line that `metrics.jsonl` of this run has already.
    pub(crate) fn append(&mut self, run: &Path, line: &[u8]) -> Result<()> {
        if self.sinks.is_empty() {
            return Ok(());
        }
        let (mut history, now) = (None, now());
        for (format, sink) in &mut self.sinks {
            if let Some(sink) = sink {
                // The time of the line is the present: its part of the run is the one that writes.
                let record = serde_json::from_slice(line).ok().and_then(|value| Record::of(&value));
                if let Some(record) = record.map(|record| Record { time: now, ..record })
                    && sink.append(&record)?
                {
                    continue;
                }
            }
            let history = match &history {
                Some(history) => history,
                None => history.insert(History::read(run)?),
            };
            *sink = Some(open(run, history, *format, &run.join(format.file()))?);
        }
        Ok(())
    }

    /// Takes the end of the run.
    pub(crate) fn end(&mut self, state: RunState) -> Result<()> {
        let mut sinks = self.sinks.iter_mut().filter_map(|(_, sink)| sink.as_mut());
        sinks.try_for_each(|sink| sink.end(state, now()))
    }
}

fn now() -> f64 {
    jiff::Timestamp::now().as_millisecond() as f64 / 1e3
}

/// A value for a text file: the shortest number that reads as the same bits.
fn number(value: f64) -> String {
    let text = format!("{value:?}");
    text.strip_suffix(".0").map_or(text.clone(), ToOwned::to_owned)
}
