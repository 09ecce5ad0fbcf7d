//! `infomax methods`: every method that trains by one word.

use crate::args::MethodsArgs;
use crate::{Status, print};
use anyhow::Result;
use infomax_losses::named::NamedObjective;
use infomax_run::methods::{Method, Setting, methods};

/// `infomax methods`.
pub(crate) fn run(args: &MethodsArgs) -> Result<Status> {
    let chosen = match &args.name {
        Some(name) => vec![Method::named(name)?],
        None => methods().iter().collect(),
    };
    if args.json {
        let rows = chosen.iter().map(|method| row(method)).collect::<Result<Vec<_>>>()?;
        let json = match (&args.name, rows.as_slice()) {
            (Some(_), [one]) => serde_json::to_string_pretty(one)?,
            _ => serde_json::to_string_pretty(&rows)?,
        };
        print(&json)?;
        return Ok(Status::Done);
    }
    if let (Some(_), [method]) = (&args.name, chosen.as_slice()) {
        // A file that can be given to `--config`: the name brings all keys, also the views, which depend on the images.
        let comment = |text: &str| {
            let lines = text.lines().map(|line| format!("# {line}").trim_end().to_owned());
            lines.collect::<Vec<_>>().join("\n")
        };
        let recipe = |large| method.to_toml(Setting { large, ..Setting::default() });
        print(&comment(&text(method)?))?;
        print(&format!(
            "\nmethod = \"{}\"\n\n# That sets what follows, and the views; a line without its # sets it otherwise, below its [section].",
            method.name
        ))?;
        print(&format!("#\n# For views below 128 pixels:\n#\n{}", comment(recipe(false)?.trim_end())))?;
        print(&format!("\n# For views from 128 pixels on:\n#\n{}", comment(recipe(true)?.trim_end())))?;
    } else {
        for method in &chosen {
            print(&text(method)?)?;
        }
        print(
            "\nTrain one with `infomax pretrain --method NAME`; `infomax methods NAME` prints its recipe as a file. Batch, \
             epochs\nand encoder are those of the run; on the embedded data the batch is 128. `--method` lies below files, `--data` and `--set`.",
        )?;
    }
    Ok(Status::Done)
}

fn named(method: &Method) -> Option<&'static NamedObjective> {
    infomax_losses::names().iter().find(|named| named.name == method.name)
}

/// Whether the entropy term is an entropy, in words.
fn nats(method: &Method) -> Result<&'static str> {
    Ok(match (method.has_entropy()?, method.entropy_in_nats()?) {
        (_, true) if !method.trains_nats()? => {
            "its entropy term is an entropy in nats up to constants; an account takes that entropy"
        }
        (_, true) => "its entropy term is in nats",
        (true, false) => "its entropy term is a surrogate; an account puts an estimate in nats in its place",
        (false, false) => "no entropy term; an account puts an estimate in nats in its place",
    })
}

fn text(method: &Method) -> Result<String> {
    let [embedded, small, large] = method.view_presets();
    let (composition, source) = named(method).map_or(("", ""), |named| (named.composition, named.source));
    let mut lines = vec![
        method.name.to_owned(),
        format!("    terms: {composition}"),
        format!("    heads: {}", method.heads()),
        format!("    views: {small}, {large} (embedded data: {embedded})"),
        format!("    optimizer: {}", method.optimizer()),
        format!("    {}", nats(method)?),
        format!("    source: {source}; settings: {}", method.settings),
    ];
    if !method.note.is_empty() {
        lines.push(format!("    note: {}", method.note));
    }
    Ok(lines.join("\n"))
}

fn row(method: &Method) -> Result<serde_json::Value> {
    let [embedded, small, large] = method.view_presets();
    let objective = method.objective()?;
    let recipe = |large| method.layer(Setting { large, ..Setting::default() });
    Ok(serde_json::json!({
        "name": method.name,
        "composition": named(method).map(|named| named.composition),
        "source": named(method).map(|named| named.source),
        "settings": method.settings,
        "note": method.note,
        "views": { "embedded": embedded, "small": small, "large": large },
        "entropy": objective.entropy.kind(),
        "invariance": objective.invariance.kind(),
        "entropy_in_nats": method.entropy_in_nats()?,
        "recipe": { "small": recipe(false), "large": recipe(true) },
    }))
}
