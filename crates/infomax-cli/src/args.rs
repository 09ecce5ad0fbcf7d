//! The command line.

mod embeddings;

pub(crate) use embeddings::{
    EntropyArgs, InspectArgs, MiArgs, ObjectiveArgs, ObjectiveCommand, ProbeArgs, Protocol,
};

use crate::data_cmd::DataArgs;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Information-theoretic self-supervised learning.
#[derive(Debug, Parser)]
#[command(
    name = "infomax",
    version,
    about = "Self-supervised pretraining as invariance + entropy, and a report of what the representation knows",
    after_help = "Examples:\n  infomax pretrain                          the embedded data set, VICReg, a few minutes on 2 cores\n  infomax pretrain --data photos/           your own images (class sub-folders, or flat and unlabeled)\n  infomax pretrain --resume runs/001-vicreg-shapes\n  infomax runs                              the runs in ./runs, side by side\n  infomax evaluate runs/001-vicreg-shapes   probe a checkpoint again\n  infomax embed runs/001-vicreg-shapes -o z.npy   features, with paths and labels\n  infomax data fetch cifar10                a public data set, into data/cifar10\n  infomax config show --set train.epochs=20"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a representation without labels, then show what it learned.
    #[command(
        after_help = "Examples:\n  infomax pretrain\n  infomax pretrain --data photos/ --set train.epochs=50\n  infomax pretrain --method byol           its whole recipe (`infomax methods`)\n  infomax pretrain --config configs/cifar10-vicreg.toml --data cifar10/\n  infomax pretrain --set objective.entropy.covariance=4 --set optim.name=lars --set optim.lr=0.3\n  infomax pretrain --resume runs/001-vicreg-shapes\n  infomax pretrain --resume runs/001-vicreg-shapes --epochs 40   extends a finished run\n  infomax pretrain --budget 5m                                   trains for a time\n  infomax pretrain --device cuda:0                               on a card (`infomax doctor`)\n  infomax pretrain --stop-if 'rank < 0.1 * d'                    ends a run that goes wrong\n\nCtrl-C saves a checkpoint and says how to resume.\nExit codes: 0 done, 1 error, 3 collapsed, 4 a condition holds (--stop-if), 130 interrupted."
    )]
    Pretrain(PretrainArgs),
    /// Evaluate a run: linear probe, kNN, spectrum, against a random encoder and raw pixels.
    #[command(
        after_help = "Examples:\n  infomax evaluate runs/001-vicreg-shapes --json\n  infomax evaluate runs/001-vicreg-shapes --device cpu   a run of another machine"
    )]
    Evaluate(EvaluateArgs),
    /// Embed images with the encoder of a run: one row an image, with its path and label.
    #[command(
        after_help = "Examples:\n  infomax embed runs/001-vicreg-shapes -o z.npy\n  infomax embed runs/002-vicreg-photos --data other-photos/ -o z.safetensors --projections\n\nFILE.npy holds the matrix (images, features) in f32; FILE.npz and FILE.safetensors hold it as `z`, with `index` and\n`label` (-1: unknown) beside it. FILE.csv has a line for each row: row, part, index, label, class, place."
    )]
    Embed(EmbedArgs),
    /// Write the encoder of a run for other libraries: weights under the names of torchvision or timm, or ONNX.
    #[command(
        after_help = "Examples:\n  infomax export runs/001-vicreg-shapes -o encoder.safetensors --names timm\n  infomax export runs/001-vicreg-shapes -o model.safetensors --names torchvision --head\n  infomax export runs/001-vicreg-shapes -o encoder.onnx\n\nThe Python code that builds the network and loads the file with strict=True is printed. See docs/weights.md."
    )]
    Export(ExportArgs),
    /// What do embeddings know? A report of their health, rank, entropy, normality, geometry and, with labels, probes.
    #[command(
        after_help = "Examples:\n  infomax inspect z.npy\n  infomax inspect z.npy --labels y.npy --out rows.csv\n  infomax inspect z.parquet --html report.html --out rows.parquet\n  infomax inspect z.npy --columns meta.csv --html report.html   names, groups, thumbnails\n  infomax inspect runs/001-vicreg-shapes                    the test images of a run\n  infomax inspect epoch1.npy epoch9.npy                     two embeddings of the same rows, side by side\n  infomax inspect z.npy --views z2.npy --json\n  infomax inspect z.npy --fail-if 'rankme < 0.1 * d'        for machines: exit code 4 if it holds\n\nEntropies and informations are in nats, intervals of the level 0.9. What each figure is: docs/diagnostics.md.\nExit codes: 0 done, 1 error, 2 wrong arguments, 4 a condition of --fail-if holds."
    )]
    Inspect(InspectArgs),
    /// The experiments of the paper (arXiv 2303.00633), each with its numbers, charts and a verdict.
    #[command(
        after_help = "Examples:\n  infomax paper list\n  infomax paper mixtures diagonal em      those that need no network, in minutes\n  infomax paper --all --out report        within an hour on 2 cores\n  infomax paper --all --out report --resume\n  infomax paper table --data data/cifar10 --seeds 5\n\nOUT/report.html is one self-contained page; OUT/NAME/ holds the numbers (JSON, CSV) and charts (SVG), OUT/encoders/\nthe trained encoders, which experiments share. Ctrl-C saves; --resume goes on. What each verdict rests on:\ndocs/paper.md. Exit codes: 0 done, 1 error or an experiment failed, 130 interrupted."
    )]
    Paper(PaperArgs),
    /// What this machine and this build have: processor, cards, features, disk; what a run would use, and why not more.
    #[command(
        after_help = "Examples:\n  infomax doctor\n  infomax doctor --json\n  infomax doctor --device cuda:0    whether a run could use it\n\nExit codes: 0 done, 1 the device of --device cannot be used."
    )]
    Doctor(DoctorArgs),
    /// Data sets: what is in one, the views that training sees, and public ones to download.
    Data(DataArgs),
    /// Show configurations.
    Config(ConfigArgs),
    /// Evaluate an objective on embeddings from files, or list what there is.
    #[command(
        after_help = "Examples:\n  infomax objective list\n  infomax objective vicreg z1.npy z2.npy\n  infomax objective vicreg z1.npy z2.npy --set entropy.covariance=4 --grad grads/ --json\n  infomax objective simclr --convention lightly run.safetensors:z1 run.safetensors:z2\n  infomax objective byol z1.npy z2.npy --prediction p1.npy --prediction p2.npy --target t1.npy --target t2.npy\n  infomax objective custom z1.npy z2.npy z3.npy --set invariance.kind=mse --set entropy.kind=pairdist\n\n  infomax objective simclr z1.npy z2.npy --set temperature=0.1\n\nFiles: .npy, .npz, .safetensors, .pt (FILE:NAME where it holds several arrays), .csv; (samples, dim) a view, or one\n(views, samples, dim).\nThe account says, in nats, what the views tell of each other: H(Z) + E ln q(z | z'); see docs/estimators.md."
    )]
    Objective(ObjectiveArgs),
    /// Every method that trains by one word: terms, heads, views, optimizer, source.
    #[command(
        after_help = "Examples:\n  infomax methods\n  infomax methods byol      its recipe as a file\n  infomax methods --json"
    )]
    Methods(MethodsArgs),
    /// The entropy of embeddings from a file, in nats, or what two files tell of each other.
    #[command(
        after_help = "Examples:\n  infomax entropy gaussian z.npy\n  infomax entropy pairdist z.npy --set divergence=bhattacharyya --set variance=0.1\n  infomax entropy pairdist z.npy --weights w.npy\n  infomax entropy pairdist-full means.npy --covariances s.npy\n  infomax entropy sigreg z.npy --set slices=4096 --set seed=1\n  infomax entropy renyi x.npy y.npy --set alpha=1.01     joint, conditional and mutual information\n\nKinds: every entropy term of `infomax objective list`. What is printed is H, and not the loss -H; `upper`, `lower` and\n`estimate` are values in nats, a `surrogate` moves with the entropy. Files as for `infomax objective`."
    )]
    Entropy(EntropyArgs),
    /// Runs side by side: what there is, how they differ, their curves; and metrics in other formats.
    #[command(
        after_help = "Examples:\n  infomax runs                              a table of the runs in ./runs\n  infomax runs --sort linear                the best first; any figure of `--json` is a key\n  infomax runs 001 002                      two runs: what differs, figures, curves\n  infomax runs --html runs.html             one page with curves that loads nothing\n  infomax runs export 001 --format csv -o metrics.csv\n  infomax runs export 001 --format tensorboard -o tb/001\n\nA run is named by its folder, or by its name or number in ./runs. See docs/runs.md."
    )]
    Runs(RunsArgs),
    /// Make the step again that ended a run in NaN, a collapse or an error, and show what every tensor held.
    #[command(
        after_help = "Example:\n  infomax replay runs/001-vicreg-shapes/capsules/step-00000120\n\nExit codes: 0 the step ended with the same bits as in the run, 1 error, 5 it ended in another way."
    )]
    Replay(ReplayArgs),
    /// The mutual information of two arrays, in nats and bits, by every estimator that fits, with intervals and doubts.
    #[command(
        after_help = "Examples:\n  infomax mi x.npy y.npy\n  infomax mi z.npy labels.txt                 classes: integers or words, one a row\n  infomax mi x.npy y.npy --given z.npy        I(X; Y | Z)\n  infomax mi x.npy y.npy --estimator corrected --estimator ksg1 --k 5 --json\n  infomax mi --selftest                       error and coverage where the truth is known: some minutes on 2 cores\n  infomax mi --selftest --seeds 50 --n 1000,4000 --json\n\nThe first estimate is chosen by a rule: docs/information.md. Files as for `infomax entropy`, folders and runs as\nfor `infomax inspect`. Exit codes: 0 done, 1 error, 2 wrong arguments."
    )]
    Mi(MiArgs),
    /// What simple classifiers read from embeddings: logistic regression, ridge, neighbors, few shots, published protocols.
    #[command(
        after_help = "Examples:\n  infomax probe z.npy --labels y.npy\n  infomax probe z.npy --labels y.txt --test t.npy --test-labels u.txt --protocol linear --protocol knn\n  infomax probe z.parquet --labels species    a column beside the embeddings\n  infomax probe 'z-*.npy' --labels 'y-*.npy'   shards\n  infomax probe runs/001-vicreg-shapes --protocol all --seeds 3 --json\n\nThe protocol is printed with every number, and an interval. Exit codes: 0 done, 1 error, 2 wrong arguments."
    )]
    Probe(ProbeArgs),
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct RunsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<RunsCommand>,
    /// Folders of runs, which are listed, or runs alone, which are compared [default: runs].
    #[arg(value_name = "DIR")]
    pub(crate) paths: Vec<PathBuf>,
    /// A table, even where runs alone are named.
    #[arg(long)]
    pub(crate) list: bool,
    /// Sort the table by name, state, method, data, steps, loss, seconds, started or any figure, the largest first.
    #[arg(long, value_name = "KEY", default_value = "name")]
    pub(crate) sort: String,
    /// Sort the other way around.
    #[arg(long)]
    pub(crate) reverse: bool,
    /// Write one page with the table, what differs and the curves.
    #[arg(long, value_name = "FILE.html", conflicts_with = "json")]
    pub(crate) html: Option<PathBuf>,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RunsCommand {
    /// Write the metrics of a run in another format.
    Export {
        /// The run.
        run: PathBuf,
        /// The format.
        #[arg(long)]
        format: ExportFormat,
        /// Where it goes: a file for csv, a folder otherwise.
        #[arg(long, short, value_name = "PATH")]
        out: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum ExportFormat {
    /// A row for each logged step.
    Csv,
    /// An event file of TensorBoard.
    Tensorboard,
    /// The folder `mlruns` of a local MLflow tracking server.
    Mlflow,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The capsule: RUN/capsules/step-N.
    pub(crate) capsule: PathBuf,
    /// The folder of the run, if the capsule is not in it any more.
    #[arg(long, value_name = "RUN")]
    pub(crate) run: Option<PathBuf>,
    /// Where the images of the run are now, if they moved.
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Show the parameters and gradients of all layers, not only those that are not finite.
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Where a configuration comes from.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ConfigSource {
    /// The recipe of a method by its name: objective, heads, predictor, teacher, views and optimizer; see `infomax
    /// methods`.
    #[arg(long, value_name = "NAME")]
    pub(crate) method: Option<String>,
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
    /// Weights that the encoder starts from: a safetensors or PyTorch file with the names of torchvision, timm or this
    /// project, a folder with a model.safetensors, or a run (short for `--set model.init=FILE`).
    #[arg(long, value_name = "FILE")]
    pub(crate) init: Option<PathBuf>,
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
                    "model.init" => "--init",
                    _ => "--strict",
                },
            )
        };
        let mut short = Vec::new();
        short.extend(self.epochs.map(|n| flag("train.epochs", n.to_string())));
        short.extend(self.seed.map(|n| flag("train.seed", n.to_string())));
        short.extend(self.device.as_ref().map(|name| flag("train.device", format!("\"{name}\""))));
        // Absolute, as part of the configuration: a run is continued from anywhere.
        let init = self.init.as_ref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()));
        short.extend(init.map(|path| flag("model.init", format!("{:?}", path.display().to_string()))));
        short.extend(self.strict.then(|| flag("data.strict", "true".to_owned())));
        let short = short.into_iter().map(|(text, origin)| (text, origin.to_owned()));
        let set = self.set.iter().map(|text| (text.clone(), "--set".to_owned()));
        infomax_run::config::Origins {
            method: self.method.clone(),
            file: self.config.clone(),
            data: self.data.clone(),
            assignments: short.chain(set).collect(),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The device to try: auto, cpu, cuda:N or metal.
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub(crate) device: String,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MethodsArgs {
    /// One method alone.
    pub(crate) name: Option<String>,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
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
    #[arg(long, value_name = "RUN", conflicts_with_all = ["method", "config", "data", "seed", "run", "strict", "init"])]
    pub(crate) resume: Option<PathBuf>,
    /// Train for a wall time in the place of epochs (short for `--set train.budget=TIME`): 90s, 5m, 1h 30m. The schedule
    /// follows the time, so that such a run cannot be repeated bit for bit. With `--resume` the time of the whole run.
    #[arg(long, value_name = "TIME", conflicts_with = "epochs")]
    pub(crate) budget: Option<String>,
    /// End the run with the exit code 4, saved, if this holds, for example `rank < 0.1 * d`; may be repeated. Figures are
    /// those of the monitor and of `train.online`; another name lists them. With `--resume` in the place of those of the
    /// run; `none` for none.
    #[arg(long, value_name = "CONDITION")]
    pub(crate) stop_if: Vec<String>,
    /// Only train; do not evaluate at the end.
    #[arg(long)]
    pub(crate) no_eval: bool,
    /// Of a run of several processes (`mpirun`): end it with the names of the ranks from which nothing has come for so
    /// long [default: 45]. Until the first step is made, ten times as long.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) rank_timeout: Option<f64>,
    #[command(flatten)]
    pub(crate) output: Output,
}

impl PretrainArgs {
    /// Where the configuration of a new run comes from.
    pub(crate) fn origins(&self) -> infomax_run::config::Origins {
        let mut origins = self.source.origins();
        let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        if let Some(budget) = &self.budget {
            let budget = format!("train.budget={}", quoted(budget));
            origins.assignments.insert(0, (budget, "--budget".to_owned()));
        }
        if !self.stop_if.is_empty() {
            let list: Vec<String> = self.stop_if.iter().map(|text| quoted(text)).collect();
            let list = format!("train.stop_if=[{}]", list.join(", "));
            origins.assignments.push((list, "--stop-if".to_owned()));
        }
        origins
    }
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
    /// Weights of the encoder from a file instead of a checkpoint, as for `infomax pretrain --init`.
    #[arg(long, value_name = "FILE", conflicts_with = "checkpoint")]
    pub(crate) init: Option<PathBuf>,
    /// Where to compute: auto, cpu, cuda:N or metal [default: that of the run].
    #[arg(long, value_name = "NAME")]
    pub(crate) device: Option<String>,
}

impl UseArgs {
    pub(crate) fn options(&self) -> infomax_run::UseOptions {
        infomax_run::UseOptions {
            data: self.data.clone(),
            checkpoint: self.checkpoint.clone(),
            init: self.init.clone(),
            device: self.device.clone(),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct PaperArgs {
    /// Experiments by name, or `list` for what there is. They run in the order of the list, in which those that share encoders
    /// follow each other, whatever the order here.
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

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The folder of the run, or of one of its checkpoints.
    pub(crate) run: PathBuf,
    /// Where the weights go: FILE.safetensors, or FILE.onnx for the graph of the encoder in evaluation mode.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Whose names the parameters get in a safetensors file: `torchvision`, `timm` or `own`.
    #[arg(long, value_name = "LIBRARY")]
    pub(crate) names: Option<String>,
    /// The projector as well: its names begin with `projector.`; an ONNX file has the output `projections`.
    #[arg(long)]
    pub(crate) head: bool,
    /// The momentum teacher instead of the encoder that was trained.
    #[arg(long)]
    pub(crate) teacher: bool,
    /// Another checkpoint than the newest: its step, or its folder.
    #[arg(long, value_name = "STEP")]
    pub(crate) checkpoint: Option<String>,
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
