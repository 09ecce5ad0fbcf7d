//! Metrics as the folder of a local MLflow tracking server.

use super::{Sink, number};
use crate::history::{History, Record, RunState};
use crate::run_dir::CONFIG;
use crate::{Error, Result, files};
use infomax_core::Key;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The experiment that every store has.
const EXPERIMENT: &str = "0";
/// MLflow refuses longer values of parameters.
const LONGEST: usize = 6000;

/// The layout of MLflow's `FileStore`: `mlruns/0/meta.yaml`, and for a run `mlruns/0/ID/` with `meta.yaml`, `metrics/NAME`
/// (lines of time in milliseconds, value, step), `params/NAME`, `tags/NAME` and `artifacts/`. The name of a run follows
/// from its folder and its start, so that an export of the same run replaces itself and leaves others alone.
#[derive(Debug)]
pub(super) struct Folder {
    run: PathBuf,
    id: String,
    name: String,
    started: f64,
}

impl Folder {
    pub(super) fn write(run: &Path, history: &History, store: &Path) -> Result<Self> {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let name =
            absolute(run).file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let started = history.started.unwrap_or(0.0);
        let [a, b] = Key::new((started * 1e3) as u64).fold_named(&name).words();
        let id = format!("{a:016x}{b:016x}");
        let experiment = absolute(store).join(EXPERIMENT);
        let folder = Self { run: experiment.join(&id), id, name, started };
        match fs::remove_dir_all(&folder.run) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &folder.run, e));
            }
            _ => {}
        }
        for part in ["metrics", "params", "tags", "artifacts"] {
            files::create_dir(&folder.run.join(part))?;
        }
        let meta = experiment.join("meta.yaml");
        if !meta.exists() {
            let time = milliseconds(started);
            let text = format!(
                "artifact_location: {}\ncreation_time: {time}\nexperiment_id: '{EXPERIMENT}'\nlast_update_time: {time}\n\
                 lifecycle_stage: active\nname: Default\n",
                quoted(&experiment.to_string_lossy())
            );
            files::replace(&meta, text.as_bytes())?;
        }
        let config = files::read(&run.join(CONFIG))?;
        write(&folder.run.join("artifacts").join(CONFIG), &config)?;
        for (key, value) in parameters(&String::from_utf8_lossy(&config)) {
            write(&folder.run.join("params").join(key), value.as_bytes())?;
        }
        write(&folder.run.join("tags/mlflow.runName"), folder.name.as_bytes())?;
        write(&folder.run.join("tags/mlflow.source.name"), b"infomax")?;
        let mut series: BTreeMap<&str, String> = BTreeMap::new();
        for record in &history.records {
            for (name, value) in values(record) {
                let _ = writeln!(series.entry(name).or_default(), "{}", line(record, value));
            }
        }
        for (name, text) in series {
            write(&folder.run.join("metrics").join(allowed(name)), text.as_bytes())?;
        }
        let end = history.records.last().map(|record| record.time);
        folder.state(history.state, end.filter(|_| history.state != RunState::Running))?;
        Ok(folder)
    }

    fn state(&self, state: RunState, end: Option<f64>) -> Result<()> {
        // The numbers of `RunStatus` of MLflow.
        let status = match state {
            RunState::Finished | RunState::Stopped => 3,
            RunState::Failed => 4,
            RunState::Interrupted | RunState::Unfinished => 5,
            RunState::Running => 1,
        };
        let end = end.map_or("null".to_owned(), |end| milliseconds(end).to_string());
        let text = format!(
            "artifact_uri: {}\nend_time: {end}\nentry_point_name: ''\nexperiment_id: '{EXPERIMENT}'\nlifecycle_stage: active\n\
             run_id: {id}\nrun_name: {}\nrun_uuid: {id}\nsource_name: ''\nsource_type: 4\nsource_version: ''\n\
             start_time: {}\nstatus: {status}\ntags: []\nuser_id: ''\n",
            quoted(&self.run.join("artifacts").to_string_lossy()),
            quoted(&self.name),
            milliseconds(self.started),
            id = quoted(&self.id),
        );
        files::replace(&self.run.join("meta.yaml"), text.as_bytes())
    }
}

impl Sink for Folder {
    fn append(&mut self, record: &Record) -> Result<bool> {
        for (name, value) in values(record) {
            let path = self.run.join("metrics").join(allowed(name));
            let file = OpenOptions::new().create(true).append(true).open(&path);
            let written = file.and_then(|mut file| writeln!(file, "{}", line(record, value)));
            written.map_err(|e| Error::io("write", &path, e))?;
        }
        Ok(true)
    }

    fn end(&mut self, state: RunState, time: f64) -> Result<()> {
        self.state(state, Some(time))
    }
}

/// All values but the step, which each line has by itself.
fn values(record: &Record) -> impl Iterator<Item = (&str, f64)> {
    record.values.iter().filter(|(name, _)| *name != "step").map(|(name, value)| (name.as_str(), *value))
}

fn line(record: &Record, value: f64) -> String {
    format!("{} {} {}", milliseconds(record.time), number(value), record.step)
}

fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1e3) as u64
}

/// A name as MLflow and every file system take it.
fn allowed(name: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || "_-. ".contains(c) { c } else { '_' };
    name.chars().map(keep).collect()
}

/// A string of YAML.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The values of a configuration by dotted name; none of a text that is no TOML.
fn parameters(config: &str) -> BTreeMap<String, String> {
    fn collect(path: &str, value: &toml::Value, into: &mut BTreeMap<String, String>) {
        match value {
            toml::Value::Table(table) => table.iter().for_each(|(key, value)| {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                collect(&path, value, into);
            }),
            toml::Value::String(text) => {
                drop(into.insert(allowed(path), text.chars().take(LONGEST).collect()))
            }
            other => drop(into.insert(allowed(path), other.to_string().chars().take(LONGEST).collect())),
        }
    }
    let mut found = BTreeMap::new();
    if let Ok(table) = config.parse::<toml::Table>() {
        collect("", &toml::Value::Table(table), &mut found);
    }
    found
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(|e| Error::io("write", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_has_the_run_once_and_grows() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("it's-a-run");
        fs::create_dir(&run).unwrap();
        fs::write(run.join("config.toml"), "[train]\nbatch = 40\n[objective]\nname = \"vicreg\"\n").unwrap();
        let record = |step: u64, value: f64| Record {
            step,
            time: 100.5 + step as f64,
            values: [("parts.a/b".to_owned(), value), ("step".to_owned(), step as f64)].into(),
            ..Record::default()
        };
        let history = |records| History {
            records,
            state: RunState::Running,
            ending: None,
            started: Some(100.0),
            seconds: 0.0,
            steps: 0,
            planned: None,
            problems: Vec::new(),
        };
        let store = dir.path().join("mlruns");
        Folder::write(&run, &history(vec![record(1, 0.5)]), &store).unwrap();
        let mut folder = Folder::write(&run, &history(vec![record(1, 0.5)]), &store).unwrap();
        assert_eq!(fs::read_dir(store.join("0")).unwrap().count(), 2, "meta.yaml and one run");
        assert!(folder.append(&record(2, 1e-7)).unwrap());
        let read = |name: &str| fs::read_to_string(folder.run.join(name)).unwrap();
        assert_eq!(read("metrics/parts.a_b"), "101500 0.5 1\n102500 1e-7 2\n");
        assert_eq!(
            (read("params/train.batch"), read("params/objective.name")),
            ("40".into(), "vicreg".into())
        );
        let meta = read("meta.yaml");
        assert!(meta.contains("run_name: 'it''s-a-run'") && meta.contains("status: 1\n"), "{meta}");
        assert!(meta.contains("end_time: null") && meta.contains("start_time: 100000\n"), "{meta}");
        folder.end(RunState::Failed, 103.0).unwrap();
        let meta = fs::read_to_string(folder.run.join("meta.yaml")).unwrap();
        assert!(meta.contains("status: 4\n") && meta.contains("end_time: 103000\n"), "{meta}");
    }
}
