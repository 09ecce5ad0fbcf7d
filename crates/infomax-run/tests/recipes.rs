//! Methods by one word: each one trains, follows batch, images and encoder, and refuses contradictions.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

use infomax_models::EncoderConfig;
use infomax_optim::OptimConfig;
use infomax_run::config::{Origins, layers};
use infomax_run::methods::{Method, methods};
use infomax_run::{Options, RunConfig, Silent, check, pretrain_with};

fn resolve(method: &str, assignments: &[&str]) -> infomax_run::Result<RunConfig> {
    let assignments = assignments.iter().map(|a| ((*a).to_owned(), "--set".to_owned())).collect();
    RunConfig::resolve(&layers(&Origins {
        method: Some(method.to_owned()),
        assignments,
        ..Origins::default()
    })?)
}

/// A job of seconds; the heads as deep as the method has them, and narrower.
const TINY: [&str; 8] = [
    "data.train_images=80",
    "data.test_images=40",
    "data.shapes.size=24",
    "train.batch=80",
    "train.max_steps=2",
    "model.encoder.blocks=[1, 1]",
    "model.encoder.width=8",
    "train.monitor.every=1",
];

#[test]
fn there_is_a_method_for_every_named_objective() {
    let mut named: Vec<_> = infomax_losses::names().iter().map(|named| named.name).collect();
    named.sort_unstable();
    assert_eq!(methods().iter().map(|method| method.name).collect::<Vec<_>>(), named);
}

#[test]
fn every_method_trains_on_images() {
    let folder = tempfile::tempdir().unwrap();
    for method in methods() {
        let whole = resolve(method.name, &TINY).unwrap();
        let narrow =
            |dims: &[usize]| dims.iter().map(|d| d.min(&32).to_string()).collect::<Vec<_>>().join(", ");
        let mut set: Vec<String> = TINY.iter().map(|text| (*text).to_owned()).collect();
        for (key, dims) in [
            ("projector", &whole.model.projector),
            ("predictor", &whole.model.predictor),
            ("local_projector", &whole.model.local_projector),
        ] {
            set.push(format!("model.{key}=[{}]", narrow(dims)));
        }
        set.push("objective.entropy.prototypes=40".to_owned());
        let set: Vec<&str> = set.iter().map(String::as_str).collect();
        let set = if method.name == "swav" { &set[..] } else { &set[..set.len() - 1] };
        let config = resolve(method.name, set).unwrap();
        let run = folder.path().join(method.name);
        let options = Options { run: Some(run.clone()), evaluate: false, ..Options::default() };
        pretrain_with(&config, &options, &mut Silent)
            .unwrap_or_else(|error| panic!("{}: {error}", method.name));
        // The account of every method is logged.
        let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let last: serde_json::Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
        assert_eq!(last["step"], 2, "{}", method.name);
        let information = last["account"]["information"].as_f64();
        assert!(information.is_some_and(f64::is_finite), "{}: {last}", method.name);
        // The run says its method, and reads itself again.
        let again = RunConfig::of_run(&run).unwrap();
        assert_eq!(again.method.as_deref(), Some(method.name));
    }
}

#[test]
fn the_recipe_follows_batch_encoder_and_size() {
    let config = resolve("byol", &["train.batch=64"]).unwrap();
    assert_eq!(
        (config.model.projector.as_slice(), config.model.predictor.as_slice()),
        (&[4096, 256][..], &[4096][..])
    );
    assert_eq!(
        (config.model.teacher_momentum, config.optim.lr(64, 1, 10).unwrap().base_lr),
        (Some(0.99), 0.25)
    );
    let OptimConfig::Lars(lars) = &config.optim.optimizer else { panic!("{:?}", config.optim) };
    assert!(lars.clip_lr && lars.eta == 0.02 && lars.weight_decay == 1e-5);

    let vit = resolve("byol", &["model.encoder.kind=vit", "train.batch=512"]).unwrap();
    assert!(matches!(vit.model.encoder, EncoderConfig::Vit(_)));
    assert!(matches!(&vit.optim.optimizer, OptimConfig::AdamW(c) if c.weight_decay == 0.05));
    assert_eq!(vit.optim.lr(512, 1, 10).unwrap().base_lr, 1e-3);

    let large = resolve("vicreg", &["augment.preset=vicreg-imagenet"]).unwrap();
    assert_eq!(large.model.projector, [8192, 8192, 8192]);
    assert_eq!(resolve("vicreg", &["augment.size=224"]).unwrap().model.projector, [8192, 8192, 8192]);
    assert_eq!(resolve("vicreg", &[]).unwrap().model.projector, [2048, 2048, 2048]);

    // Views of several sizes, and those that the user chose.
    let views =
        |config: &RunConfig| config.augment.resolve().unwrap().views.iter().map(|v| v.count).sum::<usize>();
    assert_eq!(views(&resolve("swav", &[]).unwrap()), 6);
    assert_eq!(views(&resolve("swav", &["augment.preset=swav-multicrop-cifar"]).unwrap()), 8);
    assert_eq!(views(&resolve("emp-ssl", &[]).unwrap()), 20);
    assert_eq!(resolve("emp-ssl", &[]).unwrap().train.run.epochs, 2);
    assert_eq!(resolve("emp-ssl", &["train.epochs=5"]).unwrap().train.run.epochs, 5);
}

#[test]
fn what_is_written_lies_above_the_method() {
    let config =
        resolve("simclr", &["model.projector=[64, 32]", "objective.temperature=0.2", "optim.lr=0.7"])
            .unwrap();
    assert_eq!((config.model.projector.as_slice(), config.optim.schedule.lr), (&[64, 32][..], 0.7));
    assert_eq!(config.objective.temperature, Some(0.2));
    let other = resolve("simclr", &["optim.name=adamw"]).unwrap();
    assert!(matches!(other.optim.optimizer, OptimConfig::AdamW(_)));
    // The layer can be written as a file, too.
    let in_file = infomax_run::config::layers(&Origins {
        assignments: vec![("method=simclr".to_owned(), "--set".to_owned())],
        ..Origins::default()
    });
    assert_eq!(RunConfig::resolve(&in_file.unwrap()).unwrap(), resolve("simclr", &[]).unwrap());
}

#[test]
fn contradictions_are_refused_before_anything_is_written() {
    let message = resolve("byol", &["objective.name=vicreg"]).unwrap_err().to_string();
    assert!(
        message.contains("\"byol\"") && message.contains("\"vicreg\"") && message.contains("--method"),
        "{message}"
    );
    let message = resolve("byoll", &[]).unwrap_err().to_string();
    assert!(message.contains("byoll") && message.contains("did you mean `byol`"), "{message}");
    assert!(Method::named("byol").unwrap().heads().contains("predictor 4096"));

    let refused = |method: &str, set: &[&str], parts: &[&str]| {
        let mut all = TINY.to_vec();
        all.extend(["model.projector=[16, 8]"]);
        all.extend(set);
        let message = check(&mut resolve(method, &all).unwrap()).unwrap_err().to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{method} {set:?}: {message}");
    };
    refused("byol", &["model.predictor=[]"], &["byol", "predictions"]);
    refused("vicreg", &["model.predictor=[8]"], &["model.predictor", "vicreg", "does not look at"]);
    // A teacher that nothing looks at averages the weights.
    let mut idle = TINY.to_vec();
    idle.extend(["model.projector=[16, 8]", "model.teacher_momentum=0.9"]);
    let notes = infomax_run::Assembly::new(&resolve("vicreg", &idle).unwrap(), 1).unwrap().notes;
    assert!(
        notes.iter().any(|note| note.contains("model.teacher_momentum") && note.contains("average")),
        "{notes:?}"
    );
    refused("vicreg", &["model.local_projector=[8]"], &["model.local_projector", "vicreg"]);
    refused("vicregl", &["model.local_projector=[]"], &["local", "model.local_projector"]);
}

/// A vision transformer takes whole patches: local views are fitted, and that is said; global ones are not.
#[test]
fn local_views_fit_the_encoder() {
    let vit = |patch: usize, image: usize| {
        let (patch, image) = (format!("model.encoder.patch={patch}"), format!("model.encoder.image={image}"));
        let set = ["model.encoder.kind=vit", &patch, &image, "data.train_images=80", "train.batch=40"];
        let mut config = resolve("vicregl", &set).unwrap();
        check(&mut config).map(|_| config)
    };
    let config = vit(12, 24).unwrap();
    let sizes: Vec<_> =
        config.augment.resolve().unwrap().views.iter().map(|view| (view.size, view.local)).collect();
    assert_eq!(sizes, [(24, false), (12, true)]);
    assert_eq!(vit(4, 24).unwrap().augment.preset.as_deref(), Some("multicrop-shapes"));
    let message = vit(16, 32).unwrap_err().to_string();
    assert!(message.contains("24x24"), "{message}");
    // What it is fitted to survives being written.
    let again = RunConfig::resolve(&{
        let mut layers = infomax_run::config::Layers::default();
        layers.over(config.to_toml().unwrap().parse().unwrap(), "file");
        layers
    });
    assert_eq!(again.unwrap(), config);
}

/// What a file of a run says must be read again, whatever the optimizer is.
#[test]
fn every_optimizer_survives_being_written() {
    for name in ["sgd", "adamw", "lars", "lamb", "muon"] {
        let config = resolve("vicreg", &[&format!("optim.name={name}")]).unwrap();
        let text = config.to_toml().unwrap();
        let mut layers = infomax_run::config::Layers::default();
        layers.over(text.parse().unwrap_or_else(|error| panic!("{name}: {error}\n{text}")), "file");
        assert_eq!(RunConfig::resolve(&layers).unwrap(), config, "{name}");
    }
    let muon = resolve("vicreg", &["optim.name=muon", "optim.scale=match-rms"]).unwrap();
    assert!(muon.to_toml().unwrap().contains("scale = \"match-rms\""));
}

/// CorInfoMax sees rows of unit length, as in its authors' code: without them it diverges at their rate.
#[test]
fn corinfomax_does_not_diverge() {
    let folder = tempfile::tempdir().unwrap();
    let mut set = TINY.to_vec();
    set.extend(["train.max_steps=20", "train.batch=40", "optim.warmup_epochs=0.1"]);
    let config = resolve("corinfomax", &set).unwrap();
    let options = Options { run: Some(folder.path().join("run")), evaluate: false, ..Options::default() };
    pretrain_with(&config, &options, &mut Silent).unwrap();
}
