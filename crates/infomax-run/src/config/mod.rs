//! The configuration of a run: one typed struct with seven sections, and the layers that it is read from.

mod layers;
mod online;
mod reference;
mod schema;
mod sections;
mod settle;
mod show;
mod values;

pub use layers::{Layers, suggestion};
pub use online::OnlineConfig;
pub use reference::reference;
pub(crate) use sections::METHOD_BATCH;
pub use sections::{
    Arithmetic, AugmentConfig, CoursesSection, DataConfig, EvalConfig, OptimSection, RunConfig,
    ShapesSection, Source, TrainSection, ViewsOn,
};
pub use show::show;
pub(crate) use values::leaves;

use crate::methods::{Method, Setting};
use crate::{Error, Result};
use infomax_losses::ObjectiveConfig;
use std::path::PathBuf;
use toml::{Table, Value};

/// The sections, in the order in which they are shown.
pub const SECTIONS: [&str; 7] = ["data", "augment", "model", "objective", "optim", "train", "eval"];

/// Where a configuration comes from, below the defaults.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// The name of a method, which lies over the defaults and below all else: see [`crate::methods`].
    pub method: Option<String>,
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// A folder or file of images, which the name of the flag stands for.
    pub data: Option<PathBuf>,
    /// Assignments `section.key=value`, each with the name under which its origin is shown; the last wins.
    pub assignments: Vec<(String, String)>,
}

/// Reads all layers: defaults < defaults of a folder < method < file < data < assignments.
///
/// # Errors
/// A file that is not TOML, an assignment that is none, an unknown section or key with the nearest valid ones.
pub fn layers(origins: &Origins) -> Result<Layers> {
    let mut upper = Layers::default();
    if let Some(path) = &origins.file {
        upper.over_file(path)?;
    }
    if let Some(path) = &origins.data {
        // A folder is part of the resolved configuration: kept absolute, so that `--resume` works elsewhere.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let text = path.to_str();
        let text = text.ok_or_else(|| Error::Config(format!("{} is not valid UTF-8", path.display())))?;
        let data = Table::from_iter([
            ("source".to_owned(), Value::String("folder".into())),
            ("path".to_owned(), Value::String(text.to_owned())),
        ]);
        upper.over(Table::from_iter([("data".to_owned(), Value::Table(data))]), "--data");
    }
    for (i, (assignment, origin)) in origins.assignments.iter().enumerate() {
        // A flag is short for such an assignment: which of both is meant cannot be told.
        let (key, value) = parted(assignment);
        let other =
            origins.assignments[..i].iter().find(|(text, flag)| flag != origin && parted(text).0 == key);
        if let Some((text, flag)) = other.filter(|(text, _)| parted(text).1 != value) {
            let said = parted(text).1.map_or_else(|| text.clone(), |value| value.to_string());
            return Err(Error::Config(format!(
                "{flag} {said} and {origin} {assignment} say two things of {key}: leave one of them out"
            )));
        }
        upper.over_assignment(assignment, origin)?;
    }
    if let Some(name) = &origins.method {
        if let Some(other) = upper.method()?.filter(|other| other != name) {
            return Err(Error::Config(format!(
                "--method {name} and method = \"{other}\" (from {}) name two methods: leave one of them out",
                upper.origin("method")
            )));
        }
        upper.over(Table::from_iter([("method".to_owned(), Value::String(name.clone()))]), "--method");
    }
    epochs_or_budget(&mut upper)?;
    let given = |key: &str| upper.table().get("data").and_then(|data| data.get(key)).is_some();
    if given("path") && !given("source") {
        // A path means what lies there.
        let origin = upper.origin("data.path").to_owned();
        upper.over_assignment("data.source=folder", &origin)?;
    }
    let folder = upper.table().get("data").and_then(|data| data.get("source")).and_then(Value::as_str)
        == Some("folder");

    let mut layers = Layers::default();
    let defaults = RunConfig::default();
    let mut lowest = table(&defaults)?;
    // Of the objective the name alone: its terms follow from it and from the convention that is asked for.
    let name = ("name".to_owned(), Value::String(defaults.objective.name.clone()));
    lowest.insert("objective".to_owned(), Value::Table(Table::from_iter([name])));
    let views = upper.table().get("augment").and_then(Value::as_table);
    let (preset, recipe_given) =
        ["preset", "recipe"].map(|key| views.is_some_and(|views| views.contains_key(key))).into();
    if preset && recipe_given {
        let (one, other) = (upper.origin("augment.preset"), upper.origin("augment.recipe"));
        return Err(Error::Config(format!(
            "augment.preset (from {one}) and [augment.recipe] (from {other}) both say what the views are: leave one \
             of them out"
        )));
    }
    if let Some(Value::Table(augment)) = lowest.get_mut("augment")
        && (preset || recipe_given || folder)
    {
        // The default size is that of the default recipe: another one has its own, and that of a folder follows from
        // the images.
        augment.remove("size");
        augment.remove("preset");
    }
    layers.over(lowest, "default");
    if folder {
        let changed = difference(&table(&defaults)?, table(&defaults.for_folder())?);
        layers.over(changed, "default for folders");
    }
    if let Some(name) = upper.method()? {
        let method = Method::named(&name)?;
        let setting = setting(&upper, folder);
        agree(method, &upper)?;
        let mut recipe = method.layer(setting);
        if let Some(Value::Table(augment)) = recipe.get_mut("augment") {
            if preset || recipe_given {
                // Whoever chooses the views chooses their size.
                augment.clear();
            } else if let Some(Value::Table(below)) = layers.section_mut("augment") {
                below.remove("size");
            }
        }
        layers.over(recipe, &format!("default of {name}"));
    } else if let Some(name) = values::at(upper.table(), "optim.name").and_then(Value::as_str)
        && let Some((lr, _)) = crate::methods::usual(name).filter(|_| name != "adamw")
        && values::at(upper.table(), "optim.scale").and_then(Value::as_str) != Some("match-rms")
    {
        // The rate of the default job is one of AdamW.
        let optim = Value::Table(Table::from_iter([("lr".to_owned(), Value::Float(lr))]));
        layers.over(Table::from_iter([("optim".to_owned(), optim)]), &format!("default of {name}"));
    }
    layers.over_layers(upper);
    // With its preset written out, so that a wrong key is held against those of the kind that is chosen.
    objective(&layers)?;
    layers.check()?;
    Ok(layers)
}

/// Epochs of the command line end the budget of a file, and so does the word `none`. Both of the command line are one too
/// many. A file may have both, as that of a run has: a run with a budget looks at no epochs.
fn epochs_or_budget(upper: &mut Layers) -> Result<()> {
    let none = values::at(upper.table(), "train.budget").and_then(Value::as_str) == Some("none");
    let of_line = |key: &str| upper.has(key) && upper.origin(key).starts_with("--");
    let (epochs, budget) = (of_line("train.epochs"), of_line("train.budget"));
    if epochs && budget && !none {
        return Err(Error::Config(format!(
            "train.epochs (from {}) and train.budget (from {}) both say how long the run is: leave one of them out",
            upper.origin("train.epochs"),
            upper.origin("train.budget")
        )));
    }
    if (none || epochs)
        && let Some(Value::Table(train)) = upper.section_mut("train")
    {
        train.remove("budget");
    }
    Ok(())
}

/// What the settings of a method depend on, as far as it is known before the images are.
fn setting(upper: &Layers, folder: bool) -> Setting<'_> {
    let given = |path: &str| values::at(upper.table(), path);
    let preset = given("augment.preset")
        .and_then(Value::as_str)
        .and_then(|name| infomax_augment::Recipe::preset(name).ok());
    let written: Option<Vec<i64>> = given("augment.recipe.views")
        .and_then(Value::as_array)
        .map(|views| views.iter().filter_map(|view| view.get("size")?.as_integer()).collect());
    let size = given("augment.size").and_then(Value::as_integer).or_else(|| {
        let of_preset = preset.and_then(|recipe| recipe.views.iter().map(|view| view.size as i64).max());
        of_preset.or_else(|| written?.into_iter().max())
    });
    let kind = given("model.encoder.kind").and_then(Value::as_str);
    Setting {
        embedded: !folder,
        large: size.is_some_and(|size| size >= 128),
        adaptive: matches!(kind, Some("vit" | "convnext")),
        optimizer: given("optim.name").and_then(Value::as_str),
    }
}

/// Refuses another objective than that of the method.
fn agree(method: &Method, upper: &Layers) -> Result<()> {
    let Some(other) = values::at(upper.table(), "objective.name").and_then(Value::as_str) else {
        return Ok(());
    };
    if other == method.name {
        return Ok(());
    }
    Err(Error::Config(format!(
        "method = \"{}\" (from {}) and objective.name = \"{other}\" (from {}) name two objectives: leave one of them \
         out; single keys of a method's terms are set with [objective.invariance] and [objective.entropy]",
        method.name,
        upper.origin("method"),
        upper.origin("objective.name")
    )))
}

/// The configuration as a table.
fn table(config: &RunConfig) -> Result<Table> {
    Table::try_from(config).map_err(|e| Error::Config(format!("a configuration that is no TOML: {e}")))
}

/// What is in `upper` and not the same in `lower`.
/// The key of `section.key=value`, and its value where it is one.
fn parted(assignment: &str) -> (&str, Option<Value>) {
    let (key, value) = assignment.split_once('=').unwrap_or((assignment, ""));
    (key.trim(), values::parse(value.trim()).ok())
}

fn difference(lower: &Table, upper: Table) -> Table {
    let changed = upper.into_iter().filter_map(|(key, value)| match (lower.get(&key), value) {
        (Some(Value::Table(below)), Value::Table(above)) => {
            let inner = difference(below, above);
            (!inner.is_empty()).then_some((key, Value::Table(inner)))
        }
        (Some(below), above) if *below == above => None,
        (_, above) => Some((key, above)),
    });
    changed.collect()
}

/// The objective of layers: a named preset is written out first, so that single keys of its terms can be set.
///
/// # Errors
/// An unknown name or key, with the nearest valid ones.
pub fn objective(layers: &Layers) -> Result<ObjectiveConfig> {
    let written: Table = layers.section("objective")?;
    let text = |key: &str| written.get(key).and_then(Value::as_str);
    let whole = Value::Table(written.clone());
    let number = |key: &str| {
        let value = key.split('.').try_fold(&whole, |value, key| value.get(key))?;
        value.as_float().or_else(|| value.as_integer().map(|v| v as f64))
    };
    let preset = match text("name") {
        None | Some("custom") => {
            let mut alone = layers.only("objective");
            alone.check()?;
            return alone.section("objective");
        }
        // What is set at one place of the terms and follows from it at another.
        Some(name) => ObjectiveConfig::beside(name, text("convention"), &number),
    };
    let preset = preset.map_err(|e| {
        Error::Config(match &e {
            infomax_losses::Error::Unknown { what, .. } if *what == "convention" => {
                format!("objective.convention: {e}")
            }
            infomax_losses::Error::Unknown { .. } => format!("objective.name: {e}"),
            _ => e.to_string(),
        })
    })?;
    let mut whole = Layers::default();
    let value = Value::try_from(preset).map_err(|e| Error::Config(format!("objective: {e}")))?;
    whole.over(Table::from_iter([("objective".to_owned(), value)]), "default of the preset");
    whole.over_layers(layers.only("objective"));
    whole.check()?;
    whole.section("objective")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(assignments: &[&str]) -> Result<RunConfig> {
        let assignments = assignments.iter().map(|a| ((*a).to_owned(), "--set".to_owned())).collect();
        RunConfig::resolve(&layers(&Origins { assignments, ..Origins::default() })?)
    }

    fn refused(assignment: &str, parts: &[&str]) {
        let message = resolve(&[assignment]).unwrap_err().to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{assignment}: {message}");
    }

    #[test]
    fn the_defaults_are_the_main_job_and_survive_toml() {
        let config = resolve(&[]).unwrap();
        assert_eq!(config, RunConfig::default());
        for config in [config, resolve(&["data.source=folder", "data.path=photos"]).unwrap()] {
            let mut layers = Layers::default();
            layers.over(config.to_toml().unwrap().parse().unwrap(), "file");
            assert_eq!(RunConfig::resolve(&layers).unwrap(), config);
        }
    }

    #[test]
    fn a_path_means_what_lies_there() {
        let config = resolve(&["data.path=photos"]).unwrap();
        assert_eq!(config.data.source, Source::Folder);
        assert_eq!(config.augment, RunConfig::default().for_folder().augment);
        assert!(!config.is_settled());
    }

    #[test]
    fn the_size_of_the_views_is_that_of_the_chosen_recipe() {
        let size = |assignments: &[&str]| {
            let recipe = resolve(assignments).unwrap().augment.resolve().unwrap();
            recipe.views.iter().map(|view| view.size).max().unwrap()
        };
        assert_eq!(size(&[]), 24);
        assert_eq!(size(&["augment.preset=vicreg-imagenet"]), 224);
        assert_eq!(size(&["data.path=photos", "augment.preset=vicreg-imagenet"]), 224);
        assert_eq!(size(&["data.path=photos", "augment.preset=vicreg-cifar"]), 32);
        assert_eq!(size(&["augment.preset=vicreg-imagenet", "augment.size=64"]), 64);
        assert_eq!(size(&["augment.preset=simclr-cifar@96"]), 96);
        let recipe = "augment.recipe={mean=[0.5,0.5,0.5],std=[0.2,0.2,0.2],views=[{count=2,size=48}]}";
        assert_eq!(size(&[recipe]), 48);
        let pixels = |assignments: &[&str]| {
            let recipe = resolve(assignments).unwrap().augment.resolve().unwrap();
            (recipe.mean, recipe.std)
        };
        let own = pixels(&[]).1;
        assert_eq!(pixels(&["augment.mean=[0.5, 0.25, 0.75]"]), (vec![0.5, 0.25, 0.75], own));
        assert_eq!(pixels(&[recipe, "augment.std=[1.0, 1.0, 0.5]"]), (vec![0.5; 3], vec![1.0, 1.0, 0.5]));
        let message = resolve(&["augment.std=[0.5, 0.5]"]).unwrap_err().to_string();
        assert!(message.contains("augment.std") && message.contains("3 and 2 values"), "{message}");
        let refused = |assignments: &[&str], part: &str| {
            let message = resolve(assignments).unwrap_err().to_string();
            assert!(message.contains("augment.size = 32") && message.contains(part), "{message}");
        };
        refused(&[recipe, "augment.size=32"], "[augment.recipe]");
        refused(&["augment.preset=simclr-cifar@96", "augment.size=32"], "simclr-cifar@96");
        let message = resolve(&[recipe, "augment.preset=vicreg-cifar"]).unwrap_err().to_string();
        assert!(message.contains("augment.preset") && message.contains("[augment.recipe]"), "{message}");
        let message = resolve(&["augment.size=100000"]).unwrap_err().to_string();
        assert!(message.contains("augment.size = 100000"), "{message}");
    }

    #[test]
    fn epochs_of_the_command_line_end_the_budget_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.toml");
        let read = |text: &str, assignments: &[(&str, &str)]| {
            std::fs::write(&file, text).unwrap();
            let assignments = assignments.iter().map(|(a, o)| ((*a).to_owned(), (*o).to_owned())).collect();
            let origins = Origins { file: Some(file.clone()), assignments, ..Origins::default() };
            layers(&origins).and_then(|layers| RunConfig::resolve(&layers)).map(|config| config.train.run)
        };
        let budget = "[train]\nbudget = \"4s\"\n";
        let run = read(budget, &[("train.epochs=1", "--epochs")]).unwrap();
        assert_eq!((run.epochs, run.budget), (1, None));
        assert!(read(budget, &[]).unwrap().budget.is_some());
        assert_eq!(read(budget, &[("train.budget=none", "--set")]).unwrap().budget, None);
        let run = read("[train]\nepochs = 3\n", &[("train.budget=4s", "--budget")]).unwrap();
        assert!(run.budget.is_some());
        assert!(read("[train]\nbudget = \"4s\"\nepochs = 2\n", &[]).unwrap().budget.is_some());
        let both = [("train.budget=4s", "--budget"), ("train.epochs=3", "--set")];
        let message = read("", &both).unwrap_err().to_string();
        assert!(message.contains("train.epochs (from --set) and train.budget (from --budget)"), "{message}");
    }

    #[test]
    fn a_flag_and_an_assignment_say_the_same() {
        let given = |flag: &str, set: &str| {
            let own = |text: &str, origin: &str| (text.to_owned(), origin.to_owned());
            let assignments = vec![own(flag, "--epochs"), own(set, "--set")];
            layers(&Origins { assignments, ..Origins::default() }).map(drop)
        };
        given("train.epochs=3", "train.epochs = 3").unwrap();
        given("train.epochs=3", "train.seed=4").unwrap();
        let message = given("train.epochs=3", "train.epochs=1").unwrap_err().to_string();
        assert!(message.starts_with("--epochs 3 and --set train.epochs=1 say two things"), "{message}");
        // Of assignments alone the last one wins.
        assert_eq!(resolve(&["train.epochs=3", "train.epochs=1"]).unwrap().train.run.epochs, 1);
    }

    #[test]
    fn an_encoder_is_chosen_by_its_kind() {
        let config = resolve(&["model.encoder.kind=vit", "model.encoder.width=64", "model.encoder.heads=2"]);
        match config.unwrap().model.encoder {
            infomax_models::EncoderConfig::Vit(vit) => assert_eq!((vit.width, vit.heads), (64, 2)),
            other => panic!("{other:?}"),
        }
        // The keys of the old choice are gone with it.
        refused("model.encoder.kind=tree", &["tree", "model.encoder", "resnet, vit, convnext"]);
    }

    #[test]
    fn unknown_keys_are_named_with_their_place_and_the_nearest() {
        refused("train.epoch=3", &["`epoch`", "[train]", "--set", "did you mean `epochs`"]);
        refused("trian.epochs=3", &["[trian]", "did you mean `train`"]);
        refused("model.encoder.widht=3", &["`widht`", "[model.encoder]", "did you mean `width`"]);
        refused("optim.beta3=0.9", &["`beta3`", "[optim]", "did you mean `beta"]);
        refused("objective.entropy.varience=3", &["`varience`", "[objective.entropy]", "`variance`"]);
        refused("objective.invariance.wieght=3", &["`wieght`", "[objective.invariance]", "`weight`"]);
        refused("objective.variance=10", &["`variance` in [objective]", "did you mean `entropy.variance`"]);
        refused("eval.knn.kk=3", &["`kk`", "[eval.knn]"]);
        refused("augment.recipe.mean=[0.5]", &["augment.recipe"]);
    }

    #[test]
    fn old_names_say_what_to_write() {
        refused("eval.knn_k=20", &["eval.knn_k", "eval.knn.k"]);
        refused("model.vit.width=64", &["model.vit", "[model.encoder]", "kind = \"vit\""]);
        refused("model.convnext.patch=4", &["model.convnext", "kind = \"convnext\""]);
    }

    /// Where one of a few words is wanted, the answer to anything else is these words, never serde's terms.
    #[test]
    fn what_is_no_word_is_answered_with_the_words() {
        refused("train.precision=1", &["train.precision = 1", "--set", "f32, tf32, bf16, bf16x3"]);
        refused("train.precision={a = 1}", &["train.precision", "f32, tf32, bf16, bf16x3"]);
        refused("model.encoder.kind=3", &["model.encoder.kind = 3", "resnet, vit, convnext"]);
        refused("optim.name=false", &["optim.name = false", "sgd", "lars"]);
        for (path, words) in worded() {
            let (section, key) = path.rsplit_once('.').unwrap();
            // A wrong value of the type of a number, of a switch, of a list and of a table.
            for value in ["1", "2.5", "true", "[1, 2]", "{ a = 1 }"] {
                let Err(error) = resolve(&[&format!("{section}.{key}={value}")]) else { continue };
                let message = error.to_string();
                for term in ["variant", "enum", "expected string or", "unit"] {
                    assert!(!message.contains(term), "{path} = {value}: {message}");
                }
                assert!(
                    message.contains(&path) && message.contains(&words[0]),
                    "{path} = {value}: {message}"
                );
            }
        }
    }

    /// The keys of the defaults that hold one of a few words, with these.
    fn worded() -> Vec<(String, Vec<String>)> {
        let defaults = Table::try_from(RunConfig::default()).unwrap();
        let all = super::values::leaves(&defaults).into_iter().map(|(path, _)| path);
        let found: Vec<_> =
            all.filter_map(|path| schema::words_at(&path, &defaults).map(|words| (path, words))).collect();
        assert!(found.len() > 8, "{found:?}");
        found
    }

    #[test]
    fn wrong_types_and_ranges_name_their_key() {
        refused("train.epochs=many", &["train.epochs", "many"]);
        refused("train.precision=f16", &["train.precision", "f16"]);
        refused("train.arithmetic=amx", &["train.arithmetic", "amx", "auto, f32, pairs, tiles"]);
        refused("data.cache_mib=-1", &["data.cache_mib"]);
        refused("eval.linear.l2=3", &["eval.linear.l2"]);
        refused("optim.lr=-1", &["optim.lr = -1"]);
        refused("data.shapes.scale=3", &["data.shapes.scale", "a list of length 2", "for example", "["]);
        refused("model.encoder.stem=foo", &["model.encoder.stem", "foo", "cifar"]);
        refused("model.encoder.kind=foo", &["model.encoder.kind", "foo", "resnet"]);
        refused("optim.name=lion", &["optim.name = \"lion\"", "lars"]);
        refused("model.projector=[64, 64", &["model.projector=[64, 64", "not a TOML value"]);
        refused("train.seed=9223372036854775808", &["train.seed", "2^63 - 1"]);
        refused("train.max_steps=0", &["train.max_steps = 0"]);
        refused("train.monitor.patience=0", &["train.monitor.patience = 0"]);
        refused("eval.linear.max_steps=0", &["eval.linear.max_steps"]);
        refused("train.log_every=0", &["train.log_every = 0"]);
        refused("augment.preset=nope", &["augment.", "nope"]);
        refused("objective.name=vicregg", &["objective.name", "`vicreg`"]);
        refused("objective.convention=ours", &["objective.convention", "ours"]);
    }
}
