//! The arguments of what looks at embeddings from files.

use super::Output;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Embeddings (samples, features): a file, a folder of files or a quoted pattern such as 'z-*.npy' (their rows one
    /// after the other), or a run, whose test images are embedded. FILE:NAME chooses an array or a column. A second one
    /// is compared with it.
    #[arg(value_name = "EMBEDDINGS", required = true, num_args = 1..)]
    pub(crate) files: Vec<String>,
    /// Where the encoder of a run computes: auto, cpu, cuda:N or metal [default: that of the run]. The figures
    /// themselves are computed on the CPU.
    #[arg(long, value_name = "NAME")]
    pub(crate) device: Option<String>,
    /// Embeddings of other views of the same samples.
    #[arg(long, value_name = "FILE")]
    pub(crate) views: Option<String>,
    /// The class of each row: integers or texts in an .npy file or FILE.npz:NAME, a column FILE:NAME of a table, a text file
    /// with one name or number a line (empty: unknown), or the name of a column beside the embeddings or of --columns. A
    /// column `label` is taken by itself.
    #[arg(long, value_name = "FILE|COLUMN")]
    pub(crate) labels: Option<PathBuf>,
    /// A table with a line for each row (.csv, .tsv, .jsonl, .parquet): names, paths of images, groups, splits.
    #[arg(long, value_name = "FILE")]
    pub(crate) columns: Option<PathBuf>,
    /// Rows that are read at most; of more, so many are drawn by the seed. By default as many as 112 MiB of f32 hold.
    #[arg(long, value_name = "N")]
    pub(crate) read_rows: Option<usize>,
    /// Write what is known of each row as a table: .parquet by that ending, else CSV.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Write the report with its charts as one HTML page.
    #[arg(long, value_name = "FILE.html")]
    pub(crate) html: Option<PathBuf>,
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
    /// The classes of the samples, a vector of integers (SupCon; MCR2, which takes them in the place of the views of a sample).
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

#[derive(Debug, Args)]
pub(crate) struct MiArgs {
    /// Two arrays; row i of both is the same sample. Also folders or quoted patterns of files, and runs (the features of their
    /// test images; RUN:label: their classes).
    #[arg(value_name = "X Y", num_args = 0..=2)]
    pub(crate) files: Vec<String>,
    /// The estimators: `all`, or names; may be repeated or separated by commas. With --given: ksg1, normal-copula.
    #[arg(long, value_name = "NAME", default_value = "all")]
    pub(crate) estimator: Vec<String>,
    /// A third array: the information that X and Y share beyond it.
    #[arg(long, value_name = "FILE")]
    pub(crate) given: Option<String>,
    /// What X is.
    #[arg(long, value_name = "KIND", default_value = "auto")]
    pub(crate) x_is: crate::variables::Kind,
    /// What Y is.
    #[arg(long, value_name = "KIND", default_value = "auto")]
    pub(crate) y_is: crate::variables::Kind,
    /// The number of neighbors.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) k: usize,
    /// At most so many rows are used; of more, these many are drawn by the seed. Cost grows with their square.
    #[arg(long, value_name = "N", default_value_t = 4000)]
    pub(crate) rows: usize,
    /// Subsamples for the intervals; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub(crate) draws: usize,
    /// At most so many rows in a subsample.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) max_rows: usize,
    /// The level of the intervals.
    #[arg(long, value_name = "SHARE", default_value_t = 0.9)]
    pub(crate) level: f64,
    /// Permutations for the p-values; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 99)]
    pub(crate) permutations: usize,
    /// At most so many rows take part in a permutation. With --given they are local ones, among rows of near Z.
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub(crate) permutation_rows: usize,
    /// The dimension of the projections of the estimator `sliced`.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) slice_dim: usize,
    /// The seed of everything that is drawn.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Measure the estimators where the truth is known.
    #[arg(long, conflicts_with_all = ["files", "given"])]
    pub(crate) selftest: bool,
    /// Draws of each task of the self-test [default: 5].
    #[arg(long, value_name = "N")]
    pub(crate) seeds: Option<usize>,
    /// Rows of each draw of the self-test, separated by commas [default: 1000].
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub(crate) n: Vec<usize>,
    /// Only the tasks with this in their name, or of this family.
    #[arg(long, value_name = "TEXT")]
    pub(crate) tasks: Option<String>,
    /// Add the tasks of images with exactly set information, embedded by a random encoder.
    #[arg(long)]
    pub(crate) images: bool,
    /// Write the draws of the self-test into this folder as .npy, with their truths in tasks.json, for the estimators of
    /// other programs; nothing is estimated.
    #[arg(long, value_name = "DIR")]
    pub(crate) write: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// A protocol of `infomax probe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Protocol {
    /// Multinomial logistic regression, L-BFGS, penalty on a held-out part.
    Linear,
    /// Ridge regression of one-hot labels, penalty by leaving one out.
    Ridge,
    /// Nearest neighbors; metric, vote, k and temperature on a held-out part.
    Knn,
    /// Logistic regression on a few rows of each class, drawn many times.
    FewShot,
    /// SGD with the settings of solo-learn's linear evaluation.
    SoloLearn,
    /// SGD with the settings of VICReg's linear evaluation.
    Vicreg,
    /// All of them.
    All,
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Ridge => "ridge",
            Self::Knn => "knn",
            Self::FewShot => "few-shot",
            Self::SoloLearn => "solo-learn",
            Self::Vicreg => "vicreg",
            Self::All => "all",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// Embeddings (samples, features): a file, a folder of files or a quoted pattern such as 'z-*.npy' (their rows one after
    /// the other), or a run, whose images are embedded.
    #[arg(value_name = "RUN|EMBEDDINGS")]
    pub(crate) embeddings: String,
    /// The class of each row: integers or texts in an .npy file or FILE.npz:NAME, a column FILE:NAME of a .parquet, .jsonl or
    /// .csv table, a text file with one name or number a line, several of these as a folder or a quoted pattern, or the
    /// name of a column beside the embeddings. A column `label` beside them is taken by itself.
    #[arg(long, value_name = "FILE|COLUMN")]
    pub(crate) labels: Option<String>,
    /// Embeddings to test on; without them a share of each class is held out.
    #[arg(long, value_name = "FILE")]
    pub(crate) test: Option<String>,
    /// Their classes, as --labels [default: the column of the same name beside them].
    #[arg(long, value_name = "FILE|COLUMN", requires = "test")]
    pub(crate) test_labels: Option<String>,
    /// The level of the intervals.
    #[arg(long, value_name = "SHARE", default_value_t = 0.9)]
    pub(crate) level: f64,
    /// The protocol; may be repeated [default: linear, ridge, knn, few-shot].
    #[arg(long, value_name = "NAME")]
    pub(crate) protocol: Vec<Protocol>,
    /// Over so many seeds mean and deviation are taken: of the split, the choice of settings, the order of rows.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seeds: usize,
    /// The first seed.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// The share of each class that is held out to test on.
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    pub(crate) holdout: f64,
    /// Rows of each class of few-shot.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) shots: usize,
    /// Epochs of the SGD protocols [default: theirs].
    #[arg(long, value_name = "N")]
    pub(crate) epochs: Option<usize>,
    /// The learning rate of the SGD protocols [default: theirs].
    #[arg(long, value_name = "RATE")]
    pub(crate) lr: Option<f64>,
    /// Give features mean 0 and deviation 1 before SGD, which the published protocols do not.
    #[arg(long)]
    pub(crate) standardize: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

impl ProbeArgs {
    pub(crate) fn protocols(&self) -> Vec<Protocol> {
        use Protocol::{FewShot, Knn, Linear, Ridge, SoloLearn, Vicreg};
        if self.protocol.contains(&Protocol::All) {
            return vec![Linear, Ridge, Knn, FewShot, SoloLearn, Vicreg];
        }
        if self.protocol.is_empty() { vec![Linear, Ridge, Knn, FewShot] } else { self.protocol.clone() }
    }
}
