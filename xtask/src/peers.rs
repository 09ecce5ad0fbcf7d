//! The same work in Python and in Rust, timed one after the other on this machine.
//!
//! A peer is a script of `benches/peers` and an example of one of our crates. Both print one
//! measurement a line, `what was done: 12.3 images/s`; what has the same name is put side by
//! side. Anything else that they print is passed over.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::run::Runner;
use crate::workspace::{Workspace, cargo};

/// One piece of work that both sides do.
struct Peer {
    /// The name of the script, without `.py`.
    name: &'static str,
    package: &'static str,
    example: &'static str,
    /// Python modules without which the script cannot start.
    needs: &'static [&'static str],
    /// It reads image files, and so needs `--data`.
    files: bool,
}

/// The table of peers.
const PEERS: &[Peer] = &[
    Peer {
        name: "resnet_step",
        package: "infomax-kernels",
        example: "resnet_step",
        needs: &["torch"],
        files: false,
    },
    Peer {
        name: "resnet_layers",
        package: "infomax-kernels",
        example: "conv_layers",
        needs: &["torch"],
        files: false,
    },
    Peer {
        name: "losses",
        package: "infomax-losses",
        example: "timing",
        needs: &["torch", "lightly"],
        files: false,
    },
    Peer {
        name: "information",
        package: "infomax-eval",
        example: "information",
        needs: &["numpy", "scipy", "npeet"],
        files: false,
    },
    Peer {
        name: "ops_layers",
        package: "infomax-kernels",
        example: "ops_layers",
        needs: &["torch"],
        files: false,
    },
    Peer {
        name: "vision_step",
        package: "infomax-models",
        example: "vision_step",
        needs: &["torch", "torchvision"],
        files: false,
    },
    Peer {
        name: "augment",
        package: "infomax-augment",
        example: "throughput",
        needs: &["torch", "torchvision", "albumentations"],
        files: false,
    },
    Peer {
        name: "loader",
        package: "infomax-data",
        example: "loader",
        needs: &["torch", "torchvision", "albumentations"],
        files: true,
    },
];

/// What to time, and with what.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) filter: Option<&'a str>,
    pub(crate) python: PathBuf,
    pub(crate) threads: Option<usize>,
    pub(crate) data: Option<&'a Path>,
}

/// A measured value with its unit.
type Measures = BTreeMap<String, (f64, String)>;

/// Times both sides of every selected peer and prints one table.
pub(crate) fn run(ws: &Workspace, request: &Request<'_>) -> Result<()> {
    let selected: Vec<&Peer> =
        PEERS.iter().filter(|p| request.filter.is_none_or(|f| p.name.contains(f))).collect();
    if selected.is_empty() {
        let names: Vec<_> = PEERS.iter().map(|p| p.name).collect();
        bail!("no peer matches {:?}; there are: {}", request.filter.unwrap_or_default(), names.join(", "));
    }
    let mut rows = Vec::new();
    for peer in selected {
        if peer.files && request.data.is_none() {
            println!("{}: skipped, it reads image files (--data DIR)", peer.name);
            continue;
        }
        require_modules(ws, request, peer.needs)?;
        println!("{}: Python …", peer.name);
        let theirs = measures(&python(ws, request, peer)?);
        println!("{}: Rust …", peer.name);
        let ours = measures(&rust(ws, request, peer)?);
        rows.extend(join(&ours, &theirs));
    }
    print!("\n{}", table(&rows));
    Ok(())
}

fn python(ws: &Workspace, request: &Request<'_>, peer: &Peer) -> Result<String> {
    let script = format!("benches/peers/{}.py", peer.name);
    if !ws.root().join(&script).is_file() {
        bail!("{script} does not exist");
    }
    let extra = arguments(request, peer);
    let mut argv = vec![script.as_str()];
    argv.extend(extra.iter().map(String::as_str));
    runner(ws, request).capture(request.python.as_os_str(), &request.python.to_string_lossy(), &argv)
}

fn rust(ws: &Workspace, request: &Request<'_>, peer: &Peer) -> Result<String> {
    let extra = arguments(request, peer);
    let mut argv =
        vec!["run", "--quiet", "--release", "--package", peer.package, "--example", peer.example, "--"];
    argv.extend(extra.iter().map(String::as_str));
    runner(ws, request).capture(&cargo(), "cargo", &argv)
}

fn arguments(request: &Request<'_>, peer: &Peer) -> Vec<String> {
    match request.data {
        Some(data) if peer.files => vec!["--data".to_owned(), data.to_string_lossy().into_owned()],
        _ => vec![],
    }
}

/// The environment in which both sides see the same number of threads.
fn runner<'a>(ws: &'a Workspace, request: &Request<'_>) -> Runner<'a> {
    let runner = Runner::new(ws);
    match request.threads {
        Some(n) => ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"]
            .into_iter()
            .fold(runner, |r, key| r.env(key, &n.to_string())),
        None => runner,
    }
}

/// Fails with a sentence, before any traceback, if Python or one of its packages is missing.
fn require_modules(ws: &Workspace, request: &Request<'_>, modules: &[&str]) -> Result<()> {
    let shown = request.python.to_string_lossy();
    for module in modules {
        let probe = format!("import importlib.util as u, sys; sys.exit(u.find_spec({module:?}) is None)");
        let status = Runner::new(ws).silent(request.python.as_os_str(), &["-c", &probe]);
        match status {
            Ok(true) => {}
            Ok(false) => bail!(
                "{shown} has no module {module}: `{shown} -m pip install -r benches/peers/requirements.txt`, or name \
                 another Python with --python or $INFOMAX_PYTHON"
            ),
            Err(error) => {
                bail!("could not start {shown} ({error}): name a Python with --python or $INFOMAX_PYTHON")
            }
        }
    }
    Ok(())
}

/// The measures in what a program printed: lines `name: value unit`.
fn measures(printed: &str) -> Measures {
    let parse = |line: &str| {
        let (work, rest) = line.trim().rsplit_once(": ")?;
        let (value, unit) = rest.split_once(' ')?;
        (!unit.contains(' ')).then_some((work.to_owned(), (value.parse().ok()?, unit.to_owned())))
    };
    printed.lines().filter_map(parse).collect()
}

/// One line of the table.
#[derive(Debug, PartialEq)]
struct Line {
    work: String,
    unit: String,
    ours: Option<f64>,
    theirs: Option<f64>,
}

fn join(ours: &Measures, theirs: &Measures) -> Vec<Line> {
    let mut works: Vec<&String> = ours.keys().chain(theirs.keys()).collect();
    works.sort();
    works.dedup();
    let line = |work: &String| {
        let (a, b) = (ours.get(work), theirs.get(work));
        let unit = a.or(b).map(|(_, unit)| unit.clone()).unwrap_or_default();
        Line { work: work.clone(), unit, ours: a.map(|m| m.0), theirs: b.map(|m| m.0) }
    };
    works.into_iter().map(line).collect()
}

/// The table; the ratio says how many times faster we are, whichever way the unit counts.
fn table(lines: &[Line]) -> String {
    let mut text =
        String::from("| work | unit | infomax | Python | times faster |\n|---|---|---:|---:|---:|\n");
    for line in lines {
        let show = |x: Option<f64>| x.map_or_else(|| "–".to_owned(), |x| format!("{x:.4}"));
        let ratio = match (line.ours, line.theirs) {
            (Some(a), Some(b)) if a > 0.0 && b > 0.0 => {
                let faster = if line.unit.ends_with("/s") { a / b } else { b / a };
                format!("{faster:.2}")
            }
            _ => String::new(),
        };
        text += &format!(
            "| {} | {} | {} | {} | {ratio} |\n",
            line.work,
            line.unit,
            show(line.ours),
            show(line.theirs)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_measurements_among_other_lines() {
        let found =
            measures("loading\nstep width 16: 20.5 images/s\nnote: 3 files were skipped\nepoch 1: x ms\n");
        assert_eq!(found.len(), 1);
        assert_eq!(found["step width 16"], (20.5, "images/s".to_owned()));
    }

    #[test]
    fn every_peer_has_its_script() {
        let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/peers");
        for peer in PEERS {
            assert!(peers.join(format!("{}.py", peer.name)).is_file(), "{}", peer.name);
        }
    }

    #[test]
    fn the_ratio_knows_which_way_a_unit_counts() {
        let line =
            |unit: &str| Line { work: "w".into(), unit: unit.into(), ours: Some(20.0), theirs: Some(10.0) };
        assert!(table(&[line("images/s")]).contains("| 2.00 |"));
        assert!(table(&[line("ms")]).contains("| 0.50 |"));
    }

    #[test]
    fn work_of_one_side_only_is_shown_without_a_ratio() {
        let ours = measures("a: 2.0 ms");
        let lines = join(&ours, &Measures::new());
        assert_eq!(lines[0].theirs, None);
        assert!(table(&lines).contains("| a | ms | 2.0000 | – |  |"));
    }
}
