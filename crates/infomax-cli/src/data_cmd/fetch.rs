//! `infomax data fetch`.

use super::FetchArgs;
use super::catalog::{Pack, SETS, Set};
use super::download::{self, Job, Patience};
use super::unpack;
use crate::table::table;
use crate::{Status, print};
use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use infomax_data::{OpenOptions, Verify};
use std::path::{Path, PathBuf};

pub(super) fn run(args: &FetchArgs) -> Result<Status> {
    let name = match &args.name {
        Some(name) if !args.list => name,
        _ => return list(),
    };
    let Some(set) = SETS.iter().find(|set| set.name == name) else {
        let names: Vec<_> = SETS.iter().map(|set| set.name).collect();
        let near = infomax_run::config::suggestion(name, names.iter().copied());
        bail!("there is no data set `{name}`{near}; there are: {}", names.join(", "));
    };
    let to = args.to.clone().unwrap_or_else(|| Path::new("data").join(set.name));
    let plan = Plan {
        base_url: args.base_url.as_deref().unwrap_or(set.base_url),
        to: &to,
        keep_archive: args.keep_archive,
        quiet: args.quiet,
        patience: Patience::default(),
    };
    let lines = fetch(set, &plan)?;
    print(&lines.join("\n"))?;
    Ok(Status::Done)
}

fn list() -> Result<Status> {
    let mib = |set: &Set| set.files.iter().map(|f| f.size).sum::<u64>() as f64 / f64::from(1 << 20);
    let rows: Vec<Vec<String>> =
        SETS.iter().map(|set| vec![set.name.to_owned(), format!("{:.0} MiB", mib(set))]).collect();
    let mut text = table(&["name", "download"], &rows);
    for set in SETS {
        text += &format!(
            "\n\n{}: {}\n  source:  {}\n  from:    {}\n  license: {}",
            set.name, set.about, set.source, set.base_url, set.license
        );
    }
    print(&text)?;
    Ok(Status::Done)
}

/// From where to where.
struct Plan<'a> {
    base_url: &'a str,
    to: &'a Path,
    keep_archive: bool,
    quiet: bool,
    patience: Patience,
}

/// Written last: where it is, the set is complete.
const MARK: &str = "infomax-fetch.json";

/// Downloads and unpacks a set, and says what is there.
fn fetch(set: &Set, plan: &Plan<'_>) -> Result<Vec<String>> {
    let mark = plan.to.join(MARK);
    let mut lines = Vec::new();
    if mark.is_file() {
        lines.push(format!("{} is there already (remove {} to fetch it again)", set.name, mark.display()));
    } else {
        std::fs::create_dir_all(plan.to).with_context(|| format!("cannot make {}", plan.to.display()))?;
        let agent = download::agent();
        let base = plan.base_url.trim_end_matches('/');
        for remote in set.files {
            let path = plan.to.join(remote.name);
            let url = format!("{base}/{}", remote.name);
            let bar = bar(remote.size, &format!("download {}", remote.name), plan.quiet, true);
            let job = Job { url: &url, to: &path, size: remote.size, md5: remote.md5 };
            let done = download::download(&agent, job, plan.patience, &|have| bar.set_position(have));
            bar.finish_and_clear();
            done?;
            if set.pack != Pack::None {
                unpack_beside(set, &path, plan)?;
            }
        }
        let text = serde_json::to_string_pretty(&serde_json::json!({
            "name": set.name, "from": base, "source": set.source, "license": set.license,
            "files": set.files.iter().map(|f| serde_json::json!({"name": f.name, "bytes": f.size, "md5": f.md5}))
                .collect::<Vec<_>>(),
        }))?;
        std::fs::write(&mark, text + "\n").with_context(|| format!("cannot write {}", mark.display()))?;
        if !plan.keep_archive && set.pack != Pack::None {
            for remote in set.files {
                std::fs::remove_file(plan.to.join(remote.name)).ok();
            }
        }
        lines.push(format!("{}: {}", set.name, set.about));
    }
    let options = OpenOptions { verify: Verify::Never, cache_bytes: 0, ..OpenOptions::default() };
    let opened = infomax_data::open(plan.to, &options)?;
    lines.extend(opened.parts.iter().map(|(part, data)| format!("  {part}: {}", data.describe())));
    lines.push(format!("license: {}; source: {}", set.license, set.source));
    lines.push(format!("next: infomax pretrain --data {}", plan.to.display()));
    Ok(lines)
}

/// Unpacks an archive into its own folder. All of it appears at once, or nothing.
fn unpack_beside(set: &Set, archive: &Path, plan: &Plan<'_>) -> Result<()> {
    let temporary: PathBuf = plan.to.join(".unpacking");
    // Left over from a run that was killed.
    if temporary.exists() {
        std::fs::remove_dir_all(&temporary)
            .with_context(|| format!("cannot remove {}", temporary.display()))?;
    }
    std::fs::create_dir(&temporary).with_context(|| format!("cannot make {}", temporary.display()))?;
    let bytes = std::fs::metadata(archive)?.len();
    let done = match set.pack {
        Pack::Zip => {
            let bar = bar(0, "unpack", plan.quiet, false);
            unpack::zip(archive, &temporary, set.unpacked, &|members| bar.set_position(members))
        }
        _ => {
            let bar = bar(bytes, "unpack", plan.quiet, true);
            unpack::tar_gz(archive, &temporary, set.unpacked, &|read| bar.set_position(read))
        }
    };
    let moved = done.and_then(|()| {
        for entry in std::fs::read_dir(&temporary)? {
            let entry = entry?;
            let place = plan.to.join(entry.file_name());
            if place.exists() {
                bail!(
                    "{} exists already; move it away, or fetch into another folder with --to",
                    place.display()
                );
            }
            std::fs::rename(entry.path(), &place)
                .with_context(|| format!("cannot move to {}", place.display()))?;
        }
        Ok(())
    });
    std::fs::remove_dir_all(&temporary).ok();
    moved.with_context(|| format!("cannot unpack {}", archive.display()))
}

fn bar(length: u64, what: &str, quiet: bool, bytes: bool) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if quiet {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let template = match bytes {
        true => "{msg} [{bar:24}] {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left",
        false => "{msg} {pos} files",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(what.to_owned());
    bar
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
