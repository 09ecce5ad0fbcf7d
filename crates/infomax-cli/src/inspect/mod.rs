//! `infomax inspect`: what embeddings know, as a report.

mod page;
mod rows;
mod terminal;

use crate::args::InspectArgs;
use crate::embeddings::{self, Loaded, ReadOptions};
use crate::progress::Progress;
use crate::{Status, print};
use anyhow::{Context as _, Result, bail};
use infomax_run::inspect::{
    Condition, InspectConfig, InspectInput, Inspection, Section, compare_labeled, inspect,
};

pub(crate) fn run(args: &InspectArgs) -> Result<Status> {
    // What is wrong with a condition is said before the work.
    let conditions: Vec<Condition> =
        args.fail_if.iter().map(|text| Condition::parse(text)).collect::<Result<_, _>>()?;
    if args.max_rows < 100 {
        bail!("--max-rows {}: at least 100 rows are looked at", args.max_rows);
    }
    if let [_, _, others @ ..] = args.files.as_slice()
        && !others.is_empty()
    {
        bail!(
            "{} inputs: one is inspected, or two are compared; shards of one are named by a folder or by a quoted pattern \
             such as 'z-*.npy'",
            args.files.len()
        );
    }
    targets(args)?;
    let plots = args.html.is_some();
    let cfg = InspectConfig { max_rows: args.max_rows, seed: args.seed, plots, ..InspectConfig::default() };
    let mut progress = Progress::new(args.output.quiet).of("embed");
    let mut inputs = Vec::new();
    for file in &args.files {
        inputs.push((file.as_str(), embeddings::read(file, &ReadOptions::of(args), &mut progress)?));
    }
    let mut inputs = inputs.into_iter();
    let Some((name, mut loaded)) = inputs.next() else { bail!("there are no embeddings") };
    let said = loaded.notes.len();
    embeddings::with_arguments(&mut loaded, args)?;
    loaded.notes.iter().skip(said).for_each(|note| progress.note(note));
    let views = match args.views.as_deref() {
        Some(_) if loaded.drawn.is_some() => {
            bail!(
                "--views: rows of {name} were drawn, and the views would be of others; --read-rows N reads more"
            )
        }
        Some(file) => {
            let views = embeddings::read(file, &ReadOptions::of(args), &mut progress)?;
            if views.drawn.is_some() {
                bail!(
                    "--views {file}: rows of it were drawn, and {name} was read whole; --read-rows N reads more"
                );
            }
            Some(views.z)
        }
        None => None,
    };
    let report = inspect(&InspectInput { views, ..input(&loaded) }, &cfg).with_context(|| name.to_owned())?;
    let second = match inputs.next() {
        Some((other, theirs)) => {
            if loaded.drawn != theirs.drawn {
                bail!(
                    "{name} and {other}: other rows of the two were drawn, and row i of both must be the same sample; \
                     --read-rows N reads as many of both"
                );
            }
            let labels = loaded.labels.as_ref().map(|labels| labels.classes.as_slice());
            let beside = compare_labeled(&loaded.z, &theirs.z, labels, loaded.drawn.as_deref(), &cfg)?;
            let plain = InspectConfig { plots: false, ..cfg };
            Some((other, inspect(&input(&theirs), &plain)?, beside))
        }
        None => None,
    };
    if let Some(path) = &args.out {
        rows::write(&report, &loaded, path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &args.html {
        page::write(name, &report, &loaded, second.as_ref().map(|(_, _, beside)| beside), path)?;
    }
    let known = figures(&report, second.as_ref().map(|(_, report, beside)| (report, beside)));
    let judged = judge(&conditions, &known, &report);
    let held = judged.as_ref().map_or(&[][..], Vec::as_slice);
    if args.output.json {
        let mut json = serde_json::json!({ "embeddings": name, "report": report, "failed": held });
        if !loaded.notes.is_empty() {
            json["notes"] = serde_json::json!(loaded.notes);
        }
        if let Some((name, second, beside)) = &second {
            json["second"] = serde_json::json!({ "embeddings": name, "report": second });
            json["comparison"] = serde_json::json!(beside);
        }
        print(&serde_json::to_string_pretty(&json)?)?;
    } else {
        let mut out = terminal::text(name, &report);
        if let Some((name, second, beside)) = &second {
            out += &format!("\n{}\n{}", terminal::text(name, second), terminal::section(beside));
        }
        print(out.trim_end())?;
    }
    // The report stands whatever a condition says.
    let held = judged?;
    held.iter().for_each(|condition| crate::say!("--fail-if holds: {condition}"));
    Ok(if held.is_empty() { Status::Done } else { Status::ConditionHolds })
}

/// Refuses to write over what is read, and over what is no file.
fn targets(args: &InspectArgs) -> Result<()> {
    let outputs = [("--out", args.out.as_deref()), ("--html", args.html.as_deref())];
    let tables = args.labels.iter().chain(&args.columns).filter_map(|path| path.to_str());
    let inputs: Vec<&str> = args.files.iter().chain(&args.views).map(String::as_str).chain(tables).collect();
    for (flag, path) in outputs.into_iter().filter_map(|(flag, path)| Some((flag, path?))) {
        crate::embed::target(path).with_context(|| flag.to_owned())?;
        let same = |input: &&&str| {
            // FILE:NAME reads from FILE.
            let file = input.rsplit_once(':').map_or(**input, |(file, _)| file);
            [**input, file].into_iter().any(|input| {
                matches!((std::fs::canonicalize(input), std::fs::canonicalize(path)), (Ok(a), Ok(b)) if a == b)
            })
        };
        if let Some(input) = inputs.iter().find(same) {
            bail!("{flag} {}: it is {input}, which is read; choose another name", path.display());
        }
    }
    Ok(())
}

/// The conditions that hold.
fn judge(conditions: &[Condition], known: &[(String, f64)], report: &Inspection) -> Result<Vec<String>> {
    let mut held = Vec::new();
    let names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
    for condition in conditions {
        condition.check(&names, "this report").map_err(|error| {
            // A figure that could be there, and why it is not.
            let skipped = report.sections.iter().flat_map(|section| &section.skipped);
            let why: Vec<&str> = skipped
                .filter(|why| {
                    why.split_once(':').is_some_and(|(name, _)| condition.names().any(|own| own == name))
                })
                .map(String::as_str)
                .collect();
            match why.is_empty() {
                true => anyhow::Error::from(error),
                false => anyhow::anyhow!("`{condition}`: not computed: {}", why.join("; ")),
            }
        })?;
        let value = |name: &str| known.iter().find(|(own, _)| own == name).map(|(_, value)| *value);
        match condition.holds_for(value) {
            Some(found) => held.extend(found),
            None => bail!("`{condition}`: a figure of it has no value"),
        }
    }
    Ok(held)
}

/// All figures that are printed, by name: of the first embeddings, of the comparison, and with `second_` before the name
/// those of the second ones.
fn figures(report: &Inspection, second: Option<(&Inspection, &Section)>) -> Vec<(String, f64)> {
    let of = |report: &Inspection, prefix: &str| -> Vec<(String, f64)> {
        let names = report.names().into_iter();
        names.filter_map(|name| Some((format!("{prefix}{name}"), report.value(name)?))).collect()
    };
    let mut all = of(report, "");
    if let Some((report, beside)) = second {
        all.extend(beside.figures.iter().map(|figure| (figure.key.to_owned(), figure.value)));
        all.extend(of(report, "second_"));
    }
    all
}

fn input(loaded: &Loaded) -> InspectInput {
    // Names and paths make no groups.
    let named = |name: &str| page::PATHS.iter().chain(&page::NAMES).any(|own| name.eq_ignore_ascii_case(own));
    InspectInput {
        labels: loaded.labels.as_ref().map(|labels| labels.classes.clone()),
        class_names: loaded.labels.as_ref().map(|labels| labels.names.clone()).unwrap_or_default(),
        columns: loaded.table.columns.iter().filter(|(name, _)| !named(name)).cloned().collect(),
        drawn: loaded.drawn.clone(),
        scan: loaded.scan.clone(),
        ..InspectInput::new(loaded.z.clone())
    }
}
