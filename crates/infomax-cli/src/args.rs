//! The command line.

use crate::data_cmd::DataArgs;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Information-theoretic self-supervised learning.
#[derive(Debug, Parser)]
#[command(
    name = "infomax",
    version,
    about = "Self-supervised pretraining as invariance + entropy, and a report of what the representation knows",
    after_help = "Examples:\n  infomax pretrain                          the embedded data set, VICReg, a few minutes on 2 cores\n  infomax pretrain --data photos/           your own images (class sub-folders, or flat and unlabeled)\n  infomax pretrain --resume runs/001-vicreg-shapes\n  infomax evaluate runs/001-vicreg-shapes   probe a checkpoint again\n  infomax embed runs/001-vicreg-shapes -o z.npy   features, with paths and labels\n  infomax data fetch cifar10                a public data set, into data/cifar10\n  infomax config show --set train.epochs=20"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a representation without labels, then show what it learned.
    #[command(
        after_help = "Examples:\n  infomax pretrain\n  infomax pretrain --data photos/ --set train.epochs=50\n  infomax pretrain --config configs/cifar10-vicreg.toml --data cifar10/\n  infomax pretrain --set objective.entropy.covariance=4 --set optim.name=lars --set optim.lr=0.3\n  infomax pretrain --resume runs/001-vicreg-shapes\n  infomax pretrain --resume runs/001-vicreg-shapes --epochs 40   extends a finished run\n\nCtrl-C saves a checkpoint and says how to resume. Exit codes: 0 done, 1 error, 3 collapsed, 130 interrupted."
    )]
    Pretrain(PretrainArgs),
    /// Evaluate a run: linear probe, kNN, spectrum, against a random encoder and raw pixels.
    #[command(after_help = "Example:\n  infomax evaluate runs/001-vicreg-shapes --json")]
    Evaluate(EvaluateArgs),
    /// Embed images with the encoder of a run: one row an image, with its path and label.
    #[command(
        after_help = "Examples:\n  infomax embed runs/001-vicreg-shapes -o z.npy\n  infomax embed runs/002-vicreg-photos --data other-photos/ -o z.safetensors --projections\n\nFILE.npy holds the matrix (images, features) in f32; FILE.npz and FILE.safetensors hold it as `z`, with `index` and\n`label` (-1: unknown) beside it. FILE.csv has a line for each row: row, part, index, label, class, place."
    )]
    Embed(EmbedArgs),
    /// What do embeddings know? A report of their health, rank, entropy, normality, geometry and, with labels, probes.
    #[command(
        after_help = "Examples:\n  infomax inspect z.npy\n  infomax inspect z.npy --labels y.npy --out rows.csv\n  infomax inspect runs/001-vicreg-shapes                    the test images of a run\n  infomax inspect epoch1.npy epoch9.npy                     two embeddings of the same rows, side by side\n  infomax inspect z.npy --views z2.npy --json\n  infomax inspect z.npy --fail-if 'rankme < 0.1 * d'        for machines: exit code 4 if it holds\n\nEntropies and informations are in nats, intervals of the level 0.9. What each figure is: docs/diagnostics.md.\nExit codes: 0 done, 1 error, 4 a condition of --fail-if holds."
    )]
    Inspect(InspectArgs),
    /// The experiments of the paper (arXiv 2303.00633), each with its numbers, charts and a verdict.
    #[command(
        after_help = "Examples:\n  infomax paper list\n  infomax paper mixtures diagonal em      those that need no network, in minutes\n  infomax paper --all --out report        within an hour on 2 cores\n  infomax paper --all --out report --resume\n  infomax paper table --data data/cifar10 --seeds 5\n\nOUT/report.html is one self-contained page; OUT/NAME/ holds the numbers (JSON, CSV) and charts (SVG), OUT/encoders/\nthe trained encoders, which experiments share. Ctrl-C saves; --resume goes on. What each verdict rests on:\ndocs/paper.md. Exit codes: 0 done, 1 error or an experiment failed, 130 interrupted."
    )]
    Paper(PaperArgs),
    /// Data sets: what is in one, the views that training sees, and public ones to download.
    Data(DataArgs),
    /// Show configurations.
    Config(ConfigArgs),
    /// Evaluate an objective on embeddings from files, or list what there is.
    #[command(
        after_help = "Examples:\n  infomax objective list\n  infomax objective vicreg z1.npy z2.npy\n  infomax objective vicreg z1.npy z2.npy --set entropy.covariance=4 --grad grads/ --json\n  infomax objective simclr --convention lightly run.safetensors:z1 run.safetensors:z2\n  infomax objective byol z1.npy z2.npy --prediction p1.npy --prediction p2.npy --target t1.npy --target t2.npy\n  infomax objective custom z1.npy z2.npy z3.npy --set invariance.kind=mse --set entropy.kind=pairdist\n\n  infomax objective simclr z1.npy z2.npy --set temperature=0.1\n\nFiles: .npy, .npz, .safetensors, .pt (FILE:NAME where it holds several arrays), .csv; (samples, dim) a view, or one\n(views, samples, dim).\nThe account says, in nats, what the views tell of each other: H(Z) + E ln q(z | z'); see docs/estimators.md."
    )]
    Objective(ObjectiveArgs),
    /// The entropy of embeddings from a file, in nats, or what two files tell of each other.
    #[command(
        after_help = "Examples:\n  infomax entropy gaussian z.npy\n  infomax entropy pairdist z.npy --set divergence=bhattacharyya --set variance=0.1\n  infomax entropy pairdist z.npy --weights w.npy\n  infomax entropy pairdist-full means.npy --covariances s.npy\n  infomax entropy sigreg z.npy --set slices=4096 --set seed=1\n  infomax entropy renyi x.npy y.npy --set alpha=1.01     joint, conditional and mutual information\n\nKinds: every entropy term of `infomax objective list`. What is printed is H, and not the loss -H; `upper`, `lower` and\n`estimate` are values in nats, a `surrogate` moves with the entropy. Files as for `infomax objective`."
    )]
    Entropy(EntropyArgs),
}

/// Where a configuration comes from.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ConfigSource {
    /// A TOML file with the sections [data] [augment] [model] [objective] [optim] [train] [eval].
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// A folder of images (`train/` and `test/` inside it, class sub-folders, or flat and unlabeled), or CIFAR,
    /// STL-10, MNIST, Tiny-ImageNet, WebDataset or Hugging Face shards, arrays, a list: see `infomax data info`.
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Set one value, for example `train.epochs=20`; may be repeated, the last one wins.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// The number of epochs (short for `--set train.epochs=N`).
    #[arg(long, value_name = "N")]
    pub(crate) epochs: Option<u64>,
    /// The seed of everything random (short for `--set train.seed=N`).
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Where to compute: auto, cpu, cuda:N or metal (short for `--set train.device=NAME`).
    #[arg(long, value_name = "NAME")]
    pub(crate) device: Option<String>,
    /// Treat an unreadable image as an error instead of skipping it.
    #[arg(long)]
    pub(crate) strict: bool,
}

impl ConfigSource {
    /// The same with the names under which origins are shown.
    pub(crate) fn origins(&self) -> infomax_run::config::Origins {
        let flag = |name: &str, value: String| {
            (
                format!("{name}={value}"),
                match name {
                    "train.epochs" => "--epochs",
                    "train.seed" => "--seed",
                    "train.device" => "--device",
                    _ => "--strict",
                },
            )
        };
        let mut short = Vec::new();
        short.extend(self.epochs.map(|n| flag("train.epochs", n.to_string())));
        short.extend(self.seed.map(|n| flag("train.seed", n.to_string())));
        short.extend(self.device.as_ref().map(|name| flag("train.device", format!("\"{name}\""))));
        short.extend(self.strict.then(|| flag("data.strict", "true".to_owned())));
        let short = short.into_iter().map(|(text, origin)| (text, origin.to_owned()));
        let set = self.set.iter().map(|text| (text.clone(), "--set".to_owned()));
        infomax_run::config::Origins {
            file: self.config.clone(),
            data: self.data.clone(),
            assignments: short.chain(set).collect(),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct PretrainArgs {
    #[command(flatten)]
    pub(crate) source: ConfigSource,
    /// The folder of this run [default: runs/NNN-OBJECTIVE-DATA, the next free number].
    #[arg(long, value_name = "DIR")]
    pub(crate) run: Option<PathBuf>,
    /// Continue an interrupted run from its last checkpoint, bit for bit. With `--epochs N` a finished run goes on to N
    /// epochs in all; its learning rate then follows the longer schedule.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["config", "data", "set", "seed", "device", "run", "strict"])]
    pub(crate) resume: Option<PathBuf>,
    /// Only train; do not evaluate at the end.
    #[arg(long)]
    pub(crate) no_eval: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct EvaluateArgs {
    /// The folder of the run.
    pub(crate) run: PathBuf,
    #[command(flatten)]
    pub(crate) of: UseArgs,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Which weights of a run, and which images.
#[derive(Clone, Debug, Args)]
pub(crate) struct UseArgs {
    /// Other images than those of the run.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Another checkpoint than the newest: its step, or its folder.
    #[arg(long, value_name = "STEP")]
    pub(crate) checkpoint: Option<String>,
}

impl UseArgs {
    pub(crate) fn options(&self) -> infomax_run::UseOptions {
        infomax_run::UseOptions { data: self.data.clone(), checkpoint: self.checkpoint.clone() }
    }
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Embeddings (samples, features), or a run, whose test images are embedded. A second one is compared with it.
    #[arg(value_name = "EMBEDDINGS", required = true, num_args = 1..=2)]
    pub(crate) files: Vec<String>,
    /// Embeddings of other views of the same samples.
    #[arg(long, value_name = "FILE")]
    pub(crate) views: Option<String>,
    /// The class of each row: integers in an .npy file, or a text file with one name or number a line (empty: unknown).
    #[arg(long, value_name = "FILE")]
    pub(crate) labels: Option<PathBuf>,
    /// Write what is known of each row as a table.
    #[arg(long, value_name = "FILE.csv")]
    pub(crate) out: Option<PathBuf>,
    /// End with the exit code 4 if this holds, for example `rankme < 0.1 * d`; may be repeated.
    #[arg(long, value_name = "CONDITION")]
    pub(crate) fail_if: Vec<String>,
    /// Rows that are drawn for what compares all pairs of rows.
    #[arg(long, value_name = "N", default_value_t = 4000)]
    pub(crate) max_rows: usize,
    /// The seed of what is drawn.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct PaperArgs {
    /// Experiments by name, or `list` for what there is.
    #[arg(value_name = "NAME", required_unless_present = "all", conflicts_with = "all")]
    pub(crate) names: Vec<String>,
    /// All experiments.
    #[arg(long)]
    pub(crate) all: bool,
    /// small: all of them within an hour on 2 cores. full: the paper's scale, for a GPU.
    #[arg(long, value_name = "PRESET", default_value = "small")]
    pub(crate) preset: PaperPreset,
    /// Images of your own, as for `infomax pretrain` [default: the embedded data set].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The number of seeds of each trained encoder [default: 3, of the preset full 5].
    #[arg(long, value_name = "N")]
    pub(crate) seeds: Option<u64>,
    /// Where report, numbers and encoders go.
    #[arg(long, value_name = "DIR", default_value = "paper")]
    pub(crate) out: PathBuf,
    /// Take over complete findings of the same settings that are in the folder. Encoders are taken over in any case.
    #[arg(long)]
    pub(crate) resume: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// The sizes of experiments.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum PaperPreset {
    /// Whether everything runs, in seconds; its verdicts mean nothing.
    #[value(hide = true)]
    Smoke,
    /// All of them within an hour on 2 cores.
    Small,
    /// The paper's scale.
    Full,
}

#[derive(Debug, Args)]
pub(crate) struct EmbedArgs {
    /// The folder of the run.
    pub(crate) run: PathBuf,
    /// Where the embeddings go: FILE.npy, FILE.npz or FILE.safetensors. What each row is goes into FILE.csv.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// The projections, on which the objective acts, instead of the encoder's features.
    #[arg(long)]
    pub(crate) projections: bool,
    #[command(flatten)]
    pub(crate) of: UseArgs,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Output {
    /// Print the result as one JSON object on standard output; progress stays on standard error.
    #[arg(long)]
    pub(crate) json: bool,
    /// No progress bar and no notes; warnings stay.
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// The number of threads [default: all cores]. Results do not depend on it.
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the resolved configuration, with where each value came from.
    #[command(
        after_help = "Example:\n  infomax config show --config configs/cifar10-vicreg.toml --set train.epochs=20"
    )]
    Show {
        #[command(flatten)]
        source: ConfigSource,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print every key with its default and its meaning, as Markdown.
    #[command(after_help = "Example:\n  infomax config reference")]
    Reference,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ObjectiveArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ObjectiveCommand>,
    /// The name of an objective, or `custom` with both kinds given by `--set`.
    pub(crate) name: Option<String>,
    /// The embeddings, one file a view.
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<String>,
    /// Whose conventions: `official`, `solo-learn` or `lightly` [default: the first that `list` shows].
    #[arg(long, value_name = "NAME")]
    pub(crate) convention: Option<String>,
    /// Set one value, for example `entropy.beta=10` or `entropy.kind=logdet`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Write the gradient of the total with respect to every view: DIR/grad-1.npy, grad-2.npy ...
    #[arg(long, value_name = "DIR")]
    pub(crate) grad: Option<PathBuf>,
    /// The predictions of a view (BYOL, SimSiam); once a view.
    #[arg(long, value_name = "FILE")]
    pub(crate) prediction: Vec<String>,
    /// The targets of a momentum teacher for a view (BYOL, MMCR); once a view.
    #[arg(long, value_name = "FILE")]
    pub(crate) target: Vec<String>,
    /// Local embeddings (samples, patches, dim) of a view (VICRegL); once a view.
    #[arg(long, value_name = "FILE")]
    pub(crate) local: Vec<String>,
    /// Places (samples, patches, 2) of the local embeddings of a view; once a view.
    #[arg(long, value_name = "FILE")]
    pub(crate) places: Vec<String>,
    /// The classes of the samples, a vector of integers (MCR2).
    #[arg(long, value_name = "FILE")]
    pub(crate) labels: Option<PathBuf>,
    /// The seed of random slices and groups.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Compute in f64, whatever the files hold.
    #[arg(long)]
    pub(crate) f64: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EntropyArgs {
    /// The kind of the estimator, for example `gaussian`, `pairdist` or `renyi`.
    pub(crate) kind: String,
    /// The embeddings: a matrix (samples, dim).
    #[arg(value_name = "Z")]
    pub(crate) file: String,
    /// Paired embeddings: joint and conditional entropies, and the mutual information (gaussian, logdet, renyi).
    #[arg(value_name = "Y")]
    pub(crate) other: Option<String>,
    /// Set one value of the estimator, for example `variance=0.1`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// The weights of the components of a mixture, a vector of one number a row (pairdist, pairdist-full).
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: Option<String>,
    /// The covariances (samples, dim, dim) of the components, whose means are the rows (pairdist-full).
    #[arg(long, value_name = "FILE")]
    pub(crate) covariances: Option<String>,
    /// Directions (dim, number) in the place of random ones (sigreg, visreg, sliced-normality).
    #[arg(long, value_name = "FILE")]
    pub(crate) directions: Option<String>,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ObjectiveCommand {
    /// Every named objective with its composition, conventions and source.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}
